// Package grafana writes the dashboards in dashboards/ from their definitions
// here, and tests every expression on them against a real Prometheus.
//
// After a change, run go test ./docker/grafana -update.
package grafana

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// Source is the id of the data source in provisioning/datasources.
const Source = "prometheus"

// Board is one dashboard.
type Board struct {
	UID, Title string
	Refresh    string // "" is only by hand
	Rows       []Row
}

// Row is a heading with panels, which fill lines of 24 columns.
type Row struct {
	Title  string
	Panels []Panel
}

// Panel is one graph, or a row of figures.
type Panel struct {
	Title, About string
	Unit         string            // of Grafana: s, ops, bytes …
	Units        map[string]string // of queries, by legend, where it is another one
	Kind         Kind              // Lines when ""
	Width        int               // columns, 8 when 0
	Queries      []Query
}

// Kind is how a panel draws.
type Kind string

// The kinds.
const (
	Lines   Kind = "timeseries"
	Heat    Kind = "heatmap"
	Answers Kind = "stat" // yes or no for each query
)

// Query is an expression and the name of its lines.
type Query struct{ Expr, Legend string }

// Boards lists every dashboard by the name of its file.
func Boards() map[string]Board {
	return map[string]Board{
		"agentlightning": agentLightning(), "aglq": aglq(), "mongodb": mongoDB(), "node": node(),
	}
}

const (
	panelHeight = 8
	columns     = 24
)

// JSON is the board as Grafana takes it.
func (b Board) JSON() ([]byte, error) {
	panels := []any{}
	id, y := 0, 0
	next := func() int { id++; return id }
	for _, row := range b.Rows {
		panels = append(panels, object{
			{"id", next()}, {"type", "row"}, {"title", row.Title}, {"collapsed", false},
			{"gridPos", place(0, y, columns, 1)}, {"panels", []any{}},
		})
		y++
		x := 0
		for _, p := range row.Panels {
			width := p.Width
			if width == 0 {
				width = 8
			}
			if x+width > columns {
				x, y = 0, y+panelHeight
			}
			panels = append(panels, p.json(next(), place(x, y, width, panelHeight)))
			x += width
		}
		y += panelHeight
	}
	text, err := json.Marshal(object{
		{"uid", b.UID}, {"title", b.Title}, {"tags", []string{"aglq"}}, {"timezone", "browser"},
		{"editable", true}, {"graphTooltip", 1}, {"refresh", b.Refresh}, {"schemaVersion", 39},
		{"time", object{{"from", "now-10m"}, {"to", "now"}}}, {"templating", object{{"list", []any{}}}},
		{"annotations", object{{"list", []any{}}}}, {"panels", panels},
	})
	if err != nil {
		return nil, fmt.Errorf("writing board %s: %w", b.Title, err)
	}
	var out bytes.Buffer
	err = json.Indent(&out, text, "", "  ")
	out.WriteByte('\n')
	return out.Bytes(), err
}

func place(x, y, width, height int) object {
	return object{{"x", x}, {"y", y}, {"w", width}, {"h", height}}
}

func (p Panel) json(id int, at object) object {
	kind := p.Kind
	if kind == "" {
		kind = Lines
	}
	source := object{{"type", "prometheus"}, {"uid", Source}}
	targets, overrides := make([]any, len(p.Queries)), []any{}
	for i, q := range p.Queries {
		id := string(rune('A' + i))
		target := object{{"refId", id}, {"datasource", source}, {"expr", q.Expr}, {"legendFormat", q.Legend}}
		if unit := p.Units[q.Legend]; unit != "" {
			overrides = append(overrides, object{
				{"matcher", object{{"id", "byFrameRefID"}, {"options", id}}},
				{"properties", []any{object{{"id", "unit"}, {"value", unit}}}},
			})
		}
		if strings.Contains(q.Expr, "_bucket") { // exemplars are on buckets
			target = append(target, member{"exemplar", true})
		}
		switch kind {
		case Heat:
			target = append(target, member{"format", "heatmap"})
		case Answers:
			target = append(target, member{"instant", true})
		}
		targets[i] = target
	}
	options, field := kind.options(p.Unit)
	return object{
		{"id", id}, {"type", string(kind)}, {"title", p.Title}, {"description", p.About}, {"gridPos", at},
		{"datasource", source}, {"targets", targets}, {"options", options},
		{"fieldConfig", object{{"defaults", field}, {"overrides", overrides}}},
	}
}

func (k Kind) options(unit string) (options, field object) {
	switch k {
	case Answers:
		yesNo := object{
			{"0", object{{"text", "no"}, {"color", "green"}, {"index", 0}}},
			{"1", object{{"text", "YES"}, {"color", "red"}, {"index", 1}}},
		}
		return object{
				{"reduceOptions", object{{"calcs", []string{"lastNotNull"}}}}, {"colorMode", "background"},
				{"graphMode", "none"}, {"textMode", "value_and_name"}, {"orientation", "auto"},
			}, object{
				{"mappings", []any{object{{"type", "value"}, {"options", yesNo}}}},
				{"noValue", "not measured"}, {"color", object{{"mode", "thresholds"}}},
				{"thresholds", object{{"mode", "absolute"}, {"steps", []any{
					object{{"color", "green"}, {"value", nil}}, object{{"color", "red"}, {"value", 1}},
				}}}},
			}
	case Heat:
		return object{{"calculate", false}, {"yAxis", object{{"unit", unit}}}}, object{{"unit", unit}}
	}
	return object{
			{"legend", object{{"displayMode", "table"}, {"placement", "bottom"}, {"calcs", []string{"lastNotNull", "max"}}}},
			{"tooltip", object{{"mode", "multi"}, {"sort", "desc"}}},
		}, object{
			{"unit", unit}, {"min", minimum(unit)},
			{"custom", object{{"drawStyle", "line"}, {"lineWidth", 1}, {"fillOpacity", 8}, {"showPoints", "never"}}},
		}
}

// minimum is where the axis begins: at 0, but for plain numbers, which may be
// negative.
func minimum(unit string) any {
	if unit == "none" {
		return nil
	}
	return 0
}

// object is a JSON object whose members stay in order.
type object []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			out = append(out, ',')
		}
		value, err := json.Marshal(m.value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		out = append(fmt.Appendf(out, "%q:", m.name), value...)
	}
	return append(out, '}'), nil
}

// rate is how often something happened a second, summed by labels.
func rate(series, window, by string) string {
	return fmt.Sprintf("sum by (%s) (rate(%s[%s]))", by, series, window)
}

// quantile of a histogram, over all series or by labels.
func quantile(q float64, histogram, window, by string) string {
	if by != "" {
		by = ", " + by
	}
	return fmt.Sprintf("histogram_quantile(%g, sum by (le%s) (rate(%s[%s])))", q, by, bucketsOf(histogram), window)
}

// bucketsOf puts _bucket behind the name of a series that may have conditions.
func bucketsOf(histogram string) string {
	for i, c := range histogram {
		if c == '{' {
			return histogram[:i] + "_bucket" + histogram[i:]
		}
	}
	return histogram + "_bucket"
}

// quantiles are the three usual ones.
func quantiles(histogram, window string) []Query {
	return []Query{
		{quantile(.5, histogram, window, ""), "P50"},
		{quantile(.95, histogram, window, ""), "P95"},
		{quantile(.99, histogram, window, ""), "P99"},
	}
}

func lines(title, unit, expr, legend string) Panel {
	return Panel{Title: title, Unit: unit, Queries: []Query{{expr, legend}}}
}

func (p Panel) wide(width int) Panel {
	p.Width = width
	return p
}

func (p Panel) about(text string) Panel {
	p.About = text
	return p
}
