package grafana

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// prometheus starts a server that scrapes jobs every second, and returns its URL.
func prometheus(t *testing.T, jobs map[string][]string, args ...string) string {
	t.Helper()
	rules, err := filepath.Abs("../prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	config := "global: {scrape_interval: 2s, scrape_timeout: 2s}\nrule_files: [" + strconv.Quote(rules) + "]\nscrape_configs:\n"
	for job, targets := range jobs {
		text, err := json.Marshal(targets)
		if err != nil {
			t.Fatal(err)
		}
		config += fmt.Sprintf("  - {job_name: %s, static_configs: [{targets: %s}]}\n", job, text)
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "prometheus.yml")
	if err := os.WriteFile(path, []byte(config), 0o666); err != nil {
		t.Fatal(err)
	}
	addr := freeAddress(t)
	start(t, "prometheus", append([]string{
		"--config.file=" + path, "--storage.tsdb.path=" + filepath.Join(folder, "data"), "--web.listen-address=" + addr,
	}, args...)...)
	eventually(t, 30*time.Second, func() string {
		resp, err := http.Get("http://" + addr + "/-/ready")
		if err != nil {
			return err.Error()
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return resp.Status
		}
		return ""
	})
	return "http://" + addr
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// sample is one series in the answer to a query.
type sample struct {
	Metric    map[string]string
	Value     [2]any // time, value as text
	Histogram [2]any
}

// query asks for an expression now; an expression that does not parse is an error.
func query(t *testing.T, server, expr string) []sample {
	t.Helper()
	resp, err := http.Get(server + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Status, Error string
		Data          struct{ Result []sample }
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if answer.Status != "success" {
		t.Fatalf("%s: %s", expr, answer.Error)
	}
	return answer.Data.Result
}

// hasData reports whether an answer has a number in it.
func hasData(samples []sample) bool {
	return slices.ContainsFunc(samples, func(s sample) bool {
		text, _ := s.Value[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		return err == nil && !math.IsNaN(v)
	})
}

// TestEveryExpressionReturnsData asks a real Prometheus, which scrapes stores on
// both backends, their workers and algorithms, a node exporter and what a MongoDB
// server says of itself, for every expression on every board.
func TestEveryExpressionReturnsData(t *testing.T) {
	t.Parallel()
	one, other := deploy(t, onMemory), deploy(t, onMongo(t))
	node := freeAddress(t)
	start(t, "prometheus-node-exporter", "--web.listen-address="+node)
	server := prometheus(t, map[string][]string{
		"aglq-store": {one.store}, "aglq-store-mongo": {other.store}, "aglq-worker": {one.worker, other.worker},
		"aglq-algorithm": {one.algorithm, other.algorithm}, "aglq-llm-proxy": {one.proxy, other.proxy},
		"node": {node}, "mongodb": {serve(t, newServerStatus(t))},
	}, "--enable-feature=exemplar-storage")
	var open []string // "board: panel: expression"
	exprs := map[string]string{}
	for name := range Boards() {
		for _, p := range readBoard(t, name).Panels {
			for _, q := range p.Targets {
				at := name + ": " + p.Title + ": " + q.Expr
				open, exprs[at] = append(open, at), q.Expr
			}
		}
	}
	t.Logf("%d expressions", len(open))
	eventually(t, 4*time.Minute, func() string {
		open = slices.DeleteFunc(open, func(at string) bool { return hasData(query(t, server, exprs[at])) })
		if len(open) > 0 {
			return fmt.Sprintf("%d expressions return nothing:\n%s", len(open), strings.Join(open, "\n"))
		}
		return ""
	})
	checkAnswers(t, server)
	checkExemplars(t, server)
	// The alerts parse here too, and none of them fires of itself.
	for _, alert := range []string{"AglqStoreDown", "AglqDatabaseDown", "AglqNoWorkers"} {
		if fired := query(t, server, fmt.Sprintf("ALERTS{alertname=%q}", alert)); len(fired) > 0 {
			t.Errorf("%s fires: %v", alert, fired)
		}
	}
}

// checkAnswers finds one answer for each queue to each question of the first row.
func checkAnswers(t *testing.T, server string) {
	t.Helper()
	for _, q := range Boards()["aglq"].Rows[0].Panels[0].Queries {
		var jobs []string
		for _, s := range query(t, server, q.Expr) {
			jobs = append(jobs, s.Metric["job"])
		}
		slices.Sort(jobs)
		if want := []string{"aglq-store", "aglq-store-mongo"}; !slices.Equal(jobs, want) {
			t.Errorf("%s is answered for %q, want %q", q.Legend, jobs, want)
		}
	}
}

// checkExemplars asks for the exemplars of a panel, as Grafana does where the
// panel says so.
func checkExemplars(t *testing.T, server string) {
	t.Helper()
	for _, p := range readBoard(t, "aglq").Panels {
		if p.Title != "Attempt duration" {
			continue
		}
		if !p.Targets[0].Exemplar {
			t.Errorf("%s asks for no exemplars", p.Title)
		}
		eventually(t, time.Minute, func() string {
			now := time.Now()
			resp, err := http.Get(fmt.Sprintf("%s/api/v1/query_exemplars?query=%s&start=%d&end=%d",
				server, url.QueryEscape(p.Targets[0].Expr), now.Add(-5*time.Minute).Unix(), now.Unix()))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(text), `"rollout_id":"ro-`) {
				return "no exemplar of a rollout: " + string(text)
			}
			return ""
		})
		return
	}
	t.Error("there is no panel of durations")
}

// TestNativeHistograms scrapes them, which Prometheus does when it is told to, and
// asks for quantiles without buckets.
func TestNativeHistograms(t *testing.T) {
	t.Parallel()
	d := deploy(t, onMemory)
	server := prometheus(t, map[string][]string{"aglq-store": {d.store}, "aglq-worker": {d.worker}}, "--enable-feature=native-histograms")
	eventually(t, time.Minute, func() string {
		for _, name := range []string{
			"agl_http_latency", "agl_collections_latency", "agl_rollouts_duration", "aglq_attempt_duration_seconds", "aglq_worker_task_seconds",
		} {
			if !hasData(query(t, server, "histogram_quantile(0.9, sum(rate("+name+"[15s])))")) {
				return name + " has no native histogram"
			}
		}
		return ""
	})
}

// TestAlerts runs the cases that say when each alert fires.
func TestAlerts(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"}, {"check", "rules", "alerts.yml"}, {"test", "rules", "alerts_test.yml"},
	} {
		cmd := exec.Command(program(t, "promtool"), args...)
		cmd.Dir = "../prometheus"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}
