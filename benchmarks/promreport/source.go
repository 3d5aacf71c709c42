package promreport

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/aglq/aglq/internal/sleep"
)

// histograms are what the tables of rates and latencies are made of.
var histograms = []string{"agl_http_latency", "agl_store_latency", "agl_rollouts_duration", "agl_collections_latency"}

// step is the time between two samples: a sixtieth of the whole, 1 to 15 s.
func step(whole time.Duration) time.Duration {
	return min(max(whole/60, time.Second), 15*time.Second)
}

// prometheus reads a Prometheus over its HTTP API.
type prometheus struct {
	http *http.Client
	url  string
}

// read asks for all that the report needs.
func (p *prometheus) read(ctx context.Context, start, end time.Time, every time.Duration) (*data, error) {
	whole := end.Sub(start)
	d := &data{start: unix(start), end: unix(end), series: map[string][]*series{}}
	for at := start; !at.After(end); at = at.Add(every) {
		d.looks = append(d.looks, unix(at))
	}
	ask := func(name string, every time.Duration) error {
		found, err := p.rangeOf(ctx, name, start, end, every)
		d.series[name] = found
		return err
	}
	for _, h := range histograms {
		for _, part := range []string{"_count", "_sum"} {
			if err := ask(h+part, every); err != nil {
				return nil, err
			}
		}
		// Of the many buckets only the ends matter.
		if err := ask(h+"_bucket", whole); err != nil {
			return nil, err
		}
	}
	for _, g := range gauges {
		if err := ask(g.name, every); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (p *prometheus) rangeOf(ctx context.Context, query string, start, end time.Time, every time.Duration) ([]*series, error) {
	form := url.Values{
		"query": {query}, "start": {seconds(start)}, "end": {seconds(end)},
		"step": {strconv.FormatFloat(every.Seconds(), 'f', -1, 64)},
	}
	var answer struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   struct {
			Result []struct {
				Metric map[string]string `json:"metric"`
				Values [][2]any          `json:"values"`
			} `json:"result"`
		} `json:"data"`
	}
	body, status, err := get(ctx, p.http, strings.TrimSuffix(p.url, "/")+"/api/v1/query_range?"+form.Encode())
	if err != nil {
		return nil, fmt.Errorf("asking Prometheus for %s: %w", query, err)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("asking Prometheus for %s: status %d, and no answer of a Prometheus: %.200s", query, status, body)
	}
	if answer.Status != "success" {
		return nil, fmt.Errorf("asking Prometheus for %s: %s", query, cmp.Or(answer.Error, answer.Status))
	}
	var out []*series
	for _, r := range answer.Data.Result {
		s := &series{labels: r.Metric}
		for _, v := range r.Values {
			at, ok := v[0].(float64)
			text, isText := v[1].(string)
			value, err := strconv.ParseFloat(text, 64)
			if !ok || !isText || err != nil {
				return nil, fmt.Errorf("asking Prometheus for %s: %v is no sample", query, v)
			}
			s.samples = append(s.samples, sample{at, value})
		}
		out = append(out, s)
	}
	return out, nil
}

// scraper reads a store's own metrics, again and again.
type scraper struct {
	http *http.Client
	url  string
}

// read scrapes from now on, at both ends of the time and in between.
func (s *scraper) read(ctx context.Context, whole time.Duration) (*data, error) {
	d := &data{series: map[string][]*series{}}
	known := map[string]*series{}
	start := time.Now()
	for n := 0; ; n++ {
		at := time.Now()
		if err := s.scrape(ctx, d, known, unix(at)); err != nil {
			return nil, err
		}
		if n == 0 {
			d.start = unix(at)
		}
		d.looks = append(d.looks, unix(at))
		d.end = unix(at)
		left := whole - time.Since(start)
		if n > 0 && left <= 0 {
			return d, nil
		}
		pause := min(step(whole), left)
		if left-pause < step(whole)/2 { // no sliver at the end
			pause = left
		}
		if err := sleep.For(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// scrape adds a sample to every series.
func (s *scraper) scrape(ctx context.Context, d *data, known map[string]*series, at float64) error {
	body, status, err := get(ctx, s.http, s.url)
	if err != nil {
		return fmt.Errorf("scraping the store: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("scraping the store: GET %s answered %d; start the store with --tracker prometheus", s.url, status)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(string(body)))
	if err != nil {
		return fmt.Errorf("scraping the store: GET %s answered no metrics: %w", s.url, err)
	}
	add := func(name string, labels map[string]string, value float64) {
		key := name + keyOf(labels)
		if known[key] == nil {
			known[key] = &series{labels: labels}
			d.series[name] = append(d.series[name], known[key])
		}
		known[key].samples = append(known[key].samples, sample{at, value})
	}
	for name, family := range families {
		for _, m := range family.GetMetric() {
			labels := func() map[string]string {
				all := map[string]string{}
				for _, l := range m.GetLabel() {
					all[l.GetName()] = l.GetValue()
				}
				return all
			}
			switch h := m.GetHistogram(); {
			case h != nil:
				add(name+"_count", labels(), float64(h.GetSampleCount()))
				add(name+"_sum", labels(), h.GetSampleSum())
				for _, b := range h.GetBucket() {
					of := labels()
					of["le"] = strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64)
					add(name+"_bucket", of, float64(b.GetCumulativeCount()))
				}
				if n := len(h.GetBucket()); n == 0 || !math.IsInf(h.GetBucket()[n-1].GetUpperBound(), 1) {
					of := labels()
					of["le"] = "+Inf"
					add(name+"_bucket", of, float64(h.GetSampleCount()))
				}
			case m.GetCounter() != nil:
				add(name, labels(), m.GetCounter().GetValue())
			case m.GetGauge() != nil:
				add(name, labels(), m.GetGauge().GetValue())
			case m.GetUntyped() != nil:
				add(name, labels(), m.GetUntyped().GetValue())
			}
		}
	}
	return nil
}

func keyOf(labels map[string]string) string {
	var key strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		key.WriteString("\x00" + name + "\x01" + labels[name])
	}
	return key.String()
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 512 << 20

// get reads an answer, whatever its status.
func get(ctx context.Context, c *http.Client, url string) ([]byte, int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("the answer is too large")
	}
	return body, resp.StatusCode, err
}

func unix(t time.Time) float64   { return float64(t.UnixNano()) / 1e9 }
func seconds(t time.Time) string { return strconv.FormatFloat(unix(t), 'f', 3, 64) }
