// Package plot draws line charts into one HTML file that needs nothing else: the
// pictures are SVG in the page itself, made here, without scripts.
package plot

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
)

// Point is a place on a line.
type Point struct{ X, Y float64 }

// Line is one line of a chart. Points are in the order of X; one whose Y is not
// a finite number leaves a gap.
type Line struct {
	Name   string
	Points []Point
}

// Chart is a picture with a common X, in seconds, and Y from 0 up.
type Chart struct {
	Title string
	Unit  string // of Y
	Lines []Line
}

// The picture's size and the room around the lines, in pixels.
const (
	width, height = 860.0, 280.0
	left, right   = 64.0, 16.0
	top, bottom   = 12.0, 34.0
)

// colours can be told apart by those who do not see all of them.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#555555"}

const style = `body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#222;background:#fff}
h1{font-size:1.4em}h2{font-size:1.05em;margin:1.6em 0 .3em}pre{background:#f4f4f4;padding:.8em;overflow-x:auto;font-size:12.5px;line-height:1.35}
svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:#444}.grid{stroke:#e2e2e2}.axis{stroke:#888}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.key{font-size:13px;margin:0}.key span{margin-right:1.4em;white-space:nowrap}
.key i{display:inline-block;width:1.4em;height:.28em;vertical-align:middle;margin-right:.4em}`

// Page writes a page with a title, a text that is shown as it is, and charts.
func Page(w io.Writer, title, text string, charts []Chart) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n"+
		"<title>%s</title>\n<style>%s</style></head>\n<body>\n<h1>%s</h1>\n", html.EscapeString(title), style, html.EscapeString(title))
	if text != "" {
		fmt.Fprintf(&b, "<pre>%s</pre>\n", html.EscapeString(text))
	}
	for _, c := range charts {
		c.draw(&b)
	}
	b.WriteString("</body>\n</html>\n")
	_, err := w.Write(b.Bytes())
	return err
}

func (c *Chart) draw(b *bytes.Buffer) {
	fmt.Fprintf(b, "<h2>%s, %s</h2>\n<p class=\"key\">", html.EscapeString(c.Title), html.EscapeString(c.Unit))
	for i, line := range c.Lines {
		fmt.Fprintf(b, "<span><i style=\"background:%s\"></i>%s</span>", colour(i), html.EscapeString(line.Name))
	}
	fmt.Fprintf(b, "</p>\n<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">\n", width, height, html.EscapeString(c.Title))
	maxX, maxY := c.extent()
	stepX, stepY := niceStep(maxX), niceStep(maxY)
	maxY = math.Ceil(maxY/stepY) * stepY
	px := func(x float64) float64 { return left + x/maxX*(width-left-right) }
	py := func(y float64) float64 { return height - bottom - y/maxY*(height-top-bottom) }
	for i := 0; float64(i)*stepY <= maxY*1.0001; i++ {
		y := float64(i) * stepY
		fmt.Fprintf(b, "<line class=\"grid\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.1f\" y2=\"%.1f\"/><text x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>\n",
			left, width-right, py(y), py(y), left-6, py(y)+4, number(y))
	}
	for i := 0; float64(i)*stepX <= maxX*1.0001; i++ {
		x := float64(i) * stepX
		fmt.Fprintf(b, "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>\n", px(x), height-bottom+16, number(x))
	}
	fmt.Fprintf(b, "<line class=\"axis\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%.0f\" y2=\"%.0f\"/>\n", left, width-right, height-bottom, height-bottom)
	fmt.Fprintf(b, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"end\">seconds</text>\n", width-right, height-3)
	for i, line := range c.Lines {
		line.draw(b, colour(i), px, py)
	}
	b.WriteString("</svg>\n")
}

// draw draws the stretches between gaps, and each point with its value to hover
// over.
func (l *Line) draw(b *bytes.Buffer, colour string, px, py func(float64) float64) {
	open := false
	for _, p := range l.Points {
		switch finite := !math.IsNaN(p.Y) && !math.IsInf(p.Y, 0); {
		case finite && !open:
			fmt.Fprintf(b, "<polyline class=\"line\" stroke=\"%s\" points=\"", colour)
			open = true
			fallthrough
		case finite:
			fmt.Fprintf(b, "%.1f,%.1f ", px(p.X), py(p.Y))
		case open:
			b.WriteString("\"/>\n")
			open = false
		}
	}
	if open {
		b.WriteString("\"/>\n")
	}
	for _, p := range l.Points {
		if !math.IsNaN(p.Y) && !math.IsInf(p.Y, 0) {
			fmt.Fprintf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"2\" fill=\"%s\"><title>%s: %s at %s s</title></circle>\n",
				px(p.X), py(p.Y), colour, html.EscapeString(l.Name), number(p.Y), number(p.X))
		}
	}
}

func colour(i int) string { return colours[i%len(colours)] }

// extent is the greatest X and Y, never 0.
func (c *Chart) extent() (x, y float64) {
	for _, line := range c.Lines {
		for _, p := range line.Points {
			x = max(x, p.X)
			if !math.IsNaN(p.Y) && !math.IsInf(p.Y, 0) {
				y = max(y, p.Y)
			}
		}
	}
	if x <= 0 {
		x = 1
	}
	if y <= 0 {
		y = 1
	}
	return x, y
}

// niceStep cuts a span into 4 to 10 steps of 1, 2 or 5 times a power of ten.
func niceStep(span float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(span/5)))
	for _, times := range []float64{1, 2, 5, 10} {
		if span/(times*power) <= 8 {
			return times * power
		}
	}
	return 10 * power
}

// number has three digits that say something.
func number(v float64) string {
	if v != 0 && math.Abs(v) < 1e6 && math.Abs(v) >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
