package plot

import (
	"bytes"
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
)

func TestPageStandsAlone(t *testing.T) {
	var page bytes.Buffer
	err := Page(&page, "a < b", "5 & 6", []Chart{
		{Title: "throughput", Unit: "a second", Lines: []Line{
			{Name: "<one>", Points: []Point{{0, 1}, {1, 3}, {2, math.NaN()}, {3, 2}}},
			{Name: "none"},
		}},
		{Title: "empty", Unit: "ms"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, want := range []string{"a &lt; b", "5 &amp; 6", "&lt;one&gt;: 3 at 1 s", "<h2>empty, ms</h2>"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	for _, unwanted := range []string{"http:", "https:", "<script", "NaN", "Inf"} {
		if strings.Contains(text, unwanted) {
			t.Errorf("the page has %q", unwanted)
		}
	}
	if n := strings.Count(text, "<polyline"); n != 2 { // a gap cuts the line
		t.Errorf("%d stretches, want 2", n)
	}
	if n := strings.Count(text, "<circle"); n != 3 {
		t.Errorf("%d points, want 3", n)
	}
	_, svg, _ := strings.Cut(text, "<svg")
	svg, _, _ = strings.Cut(svg, "</svg>")
	for d := xml.NewDecoder(strings.NewReader("<svg" + svg + "</svg>")); ; {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("the picture is no XML: %v", err)
		}
	}
}

func TestSteps(t *testing.T) {
	for span, want := range map[float64]float64{1: 0.2, 8: 1, 100: 20, 0.03: 0.005, 47: 10, 60: 10} {
		if got := niceStep(span); math.Abs(got-want) > 1e-9 {
			t.Errorf("steps of %v for %v, want %v", got, span, want)
		}
	}
}
