package grafana

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the boards anew")

// TestBoards keeps the files what the definitions say.
func TestBoards(t *testing.T) {
	wanted := map[string]bool{}
	for name, board := range Boards() {
		path := filepath.Join("dashboards", name+".json")
		wanted[path] = true
		text, err := board.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(path, text, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		found, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(text), string(found)); diff != "" {
			t.Errorf("%s is not what is defined; run go test ./docker/grafana -update: %s", path, diff)
		}
	}
	files, err := filepath.Glob("dashboards/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		if !wanted[path] {
			t.Errorf("%s is defined nowhere", path)
		}
	}
}

// written is what a reader of the files finds in them.
type written struct {
	UID, Title string
	Panels     []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct {
			Expr, LegendFormat string
			Exemplar           bool
		}
	}
}

func readBoard(t *testing.T, name string) written {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("dashboards", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var b written
	if err := json.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestLayout finds panels that lie over each other or beside the grid, ids that
// are given twice, and queries without a legend.
func TestLayout(t *testing.T) {
	for name := range Boards() {
		taken := map[[2]int]string{}
		ids := map[int]bool{}
		for _, p := range readBoard(t, name).Panels {
			if ids[p.ID] {
				t.Errorf("%s: id %d is given twice", name, p.ID)
			}
			ids[p.ID] = true
			if p.Type != "row" && len(p.Targets) == 0 {
				t.Errorf("%s: %s asks nothing", name, p.Title)
			}
			for _, q := range p.Targets {
				if q.LegendFormat == "" {
					t.Errorf("%s: a line of %s has no name: %s", name, p.Title, q.Expr)
				}
			}
			if p.GridPos.X+p.GridPos.W > columns {
				t.Errorf("%s: %s is beside the grid", name, p.Title)
			}
			for x := range p.GridPos.W {
				for y := range p.GridPos.H {
					at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
					if other := taken[at]; other != "" {
						t.Fatalf("%s: %s lies over %s", name, p.Title, other)
					}
					taken[at] = p.Title
				}
			}
		}
	}
}

// TestUnits finds units of lines that a panel does not have.
func TestUnits(t *testing.T) {
	found := 0
	for name, board := range Boards() {
		for _, row := range board.Rows {
			for _, p := range row.Panels {
				for legend := range p.Units {
					found++
					if !slices.ContainsFunc(p.Queries, func(q Query) bool { return q.Legend == legend }) {
						t.Errorf("%s: %s has no line %q", name, p.Title, legend)
					}
				}
			}
		}
	}
	text, err := os.ReadFile(filepath.Join("dashboards", "aglq.json"))
	if err != nil {
		t.Fatal(err)
	}
	if written := strings.Count(string(text), `"byFrameRefID"`); found == 0 || written != found {
		t.Errorf("%d lines have a unit of their own, %d are written", found, written)
	}
}

// TestReferencePanels counts what Agent-Lightning's board has: 14 panels of 22
// queries, none of them of the counters.
func TestReferencePanels(t *testing.T) {
	panels, queries := 0, 0
	for _, p := range readBoard(t, "agentlightning").Panels {
		if p.Type == "row" {
			continue
		}
		panels++
		for _, q := range p.Targets {
			queries++
			if !strings.Contains(q.Expr, "_count") && !strings.Contains(q.Expr, "_bucket") {
				t.Errorf("%s: %s", p.Title, q.Expr)
			}
		}
	}
	if panels != 14 || queries != 22 {
		t.Errorf("%d panels with %d queries", panels, queries)
	}
}

var alertName = regexp.MustCompile(`(?m)^ +- alert: (\w+)$`)

// TestEveryAlertIsExplained finds each alert, and each answer of the first row, in
// docs/metrics.md, and for each alert a case in which it fires.
func TestEveryAlertIsExplained(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	doc, cases := read("../../docs/metrics.md"), read("../prometheus/alerts_test.yml")
	alerts := alertName.FindAllStringSubmatch(read("../prometheus/alerts.yml"), -1)
	if len(alerts) == 0 {
		t.Error("there are no alerts")
	}
	for _, m := range alerts {
		if !strings.Contains(doc, "\n| "+m[1]+" | ") {
			t.Errorf("docs/metrics.md does not explain %s", m[1])
		}
		fires := regexp.MustCompile(`alertname: ` + m[1] + `,?\s+exp_alerts: *(&\w+|\*\w+)?\s*\n? +- exp_labels`)
		if !fires.MatchString(cases) {
			t.Errorf("no case shows %s fire", m[1])
		}
		if !strings.Contains(cases, "alertname: "+m[1]+", exp_alerts: []") {
			t.Errorf("no case shows %s not fire", m[1])
		}
	}
	for _, p := range Boards()["aglq"].Rows[0].Panels {
		if p.Kind != Answers {
			continue
		}
		for _, q := range p.Queries {
			if !strings.Contains(doc, "\n| "+strings.TrimSuffix(q.Legend, " ({{job}})")+" | ") {
				t.Errorf("docs/metrics.md does not explain %q", q.Legend)
			}
		}
	}
}
