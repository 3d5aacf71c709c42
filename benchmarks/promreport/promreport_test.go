package promreport

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestIncrease(t *testing.T) {
	for _, test := range []struct {
		name     string
		samples  []sample
		from, to float64
		want     float64
	}{
		{"all", []sample{{0, 5}, {10, 7}, {20, 12}}, 0, 20, 7},
		{"the second half", []sample{{0, 5}, {10, 7}, {20, 12}}, 10, 20, 5},
		{"a reset", []sample{{0, 5}, {10, 2}, {20, 3}}, 0, 20, 3},
		{"a late beginning", []sample{{10, 7}, {20, 12}}, 0, 20, 12},
		{"nothing", nil, 0, 20, 0},
	} {
		s := series{samples: test.samples}
		if got := s.increase(0, test.from, test.to); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestQuantiles(t *testing.T) {
	inf := math.Inf(1)
	d := distribution{bounds: []float64{1, 2, 4, inf}, counts: []float64{0, 50, 100, 100}}
	for q, want := range map[float64]float64{0.5: 2, 0.25: 1.5, 0.75: 3, 1: 4} {
		if got := d.quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if d.top() != 4 {
		t.Errorf("top is %v, want 4", d.top())
	}
	beyond := distribution{bounds: []float64{1, inf}, counts: []float64{1, 4}}
	if got := beyond.quantile(0.9); got != 1 {
		t.Errorf("a quantile beyond the last bound is %v, want 1", got)
	}
	if !math.IsNaN(distribution{}.quantile(0.5)) || !math.IsNaN(distribution{}.top()) {
		t.Error("nothing has a quantile")
	}
}

// exposition is what a store shows after n requests of a route, each of 5 ms,
// and as many calls of the store, one of which is inside the other.
func exposition(n int) string {
	histogram := func(name, labels string, sum float64) string {
		return fmt.Sprintf("# TYPE %[1]s histogram\n%[1]s_bucket{%[2]s,le=\"0.005\"} %[3]d\n%[1]s_bucket{%[2]s,le=\"+Inf\"} %[3]d\n%[1]s_sum{%[2]s} %[4]v\n%[1]s_count{%[2]s} %[3]d\n",
			name, labels, n, sum)
	}
	inner := strings.SplitAfterN(histogram("agl_store_latency", `method="_scan",store_pubmeth="wait",status="OK"`, 0.001*float64(n)), "\n", 2)[1]
	return histogram("agl_http_latency", `method="POST",path="/v1/agl/spans",status="201"`, 0.005*float64(n)) +
		histogram("agl_store_latency", `method="wait",store_pubmeth="wait",status="OK"`, 0.004*float64(n)) + inner +
		fmt.Sprintf("# TYPE process_resident_memory_bytes gauge\nprocess_resident_memory_bytes %d\n", 1000*n)
}

func TestScrapes(t *testing.T) {
	var n atomic.Int64
	n.Store(100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/prometheus/":
			fmt.Fprint(w, exposition(int(n.Add(100))))
		case "/v1/agl/statistics":
			fmt.Fprintf(w, `{"name":"x","total_rollouts":%d,"total_spans":7}`, n.Load())
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	r, err := Run(t.Context(), Options{StoreURL: server.URL + "/v1/agl", Duration: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	row := find(t, r, "HTTP by route").Rows[0]
	if row.Count != 100 || math.Abs(row.Avg-100/r.Seconds) > 1e-6 || math.Abs(*row.Mean-0.005) > 1e-9 || *row.P99 > 0.005 || *row.Top != 0.005 {
		t.Errorf("%+v", row)
	}
	if got := find(t, r, "store by public method").Rows; len(got) != 1 || math.Abs(*got[0].Share-1) > 1e-9 || got[0].Count != 100 {
		t.Errorf("a call inside a call was counted: %+v", got[0])
	}
	if got := find(t, r, "store by method").Rows; len(got) != 2 || math.Abs(*got[1].Share-0.25) > 1e-9 {
		t.Errorf("%d methods", len(got))
	}
	if r.Totals[0].Kind != "rollouts" || *r.Totals[0].Added != 200 || r.Totals[1].Held != 7 {
		t.Errorf("totals %+v", r.Totals)
	}
	if len(r.Gauges) != 1 || r.Gauges[0].Max != 300_000 {
		t.Errorf("gauges %+v", r.Gauges)
	}
	var text bytes.Buffer
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"POST /v1/agl/spans", "5.00ms", "collections by operation\n  no data", "store memory"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text has no %q:\n%s", want, &text)
		}
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func find(t *testing.T, r *Report, title string) *Table {
	t.Helper()
	for _, table := range r.Tables {
		if table.Title == title {
			return table
		}
	}
	t.Fatalf("there is no table %q", title)
	return nil
}

func TestPrometheus(t *testing.T) {
	asked := map[string]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.FormValue("query")
		asked[query] = r.FormValue("step")
		var start, end float64
		_, _ = fmt.Sscan(r.FormValue("start"), &start)
		_, _ = fmt.Sscan(r.FormValue("end"), &end)
		result := "[]"
		if query == "agl_http_latency_count" {
			result = fmt.Sprintf(`[{"metric":{"path":"/a","method":"GET"},"values":[[%f,"10"],[%f,"40"],[%f,"130"]]}]`, start, (start+end)/2, end)
		}
		fmt.Fprintf(w, `{"status":"success","data":{"resultType":"matrix","result":%s}}`, result)
	}))
	defer server.Close()
	r, err := Run(t.Context(), Options{Prometheus: server.URL, Duration: 2 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	row := find(t, r, "HTTP by route").Rows[0]
	got := []float64{r.Seconds, row.Count, row.Avg, row.Min, row.Max, *row.RateDelta}
	if diff := cmp.Diff([]float64{120, 120, 1, 0, 45, 2}, got); diff != "" {
		t.Errorf("seconds, count, average, least, greatest rate, change (-want +got):\n%s", diff)
	}
	if row.P50 != nil || asked["agl_store_latency_bucket"] != "120" || asked["agl_store_latency_count"] != "2" {
		t.Errorf("%v, steps %v", row.P50, asked)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, test := range []struct {
		name, answer, want string
		status             int
		prometheus         bool
	}{
		{"no metrics", "", "--tracker prometheus", 404, false},
		{"a page", "<html>", "no answer of a Prometheus", 200, true},
		{"a refusal", `{"status":"error","error":"bad range"}`, "bad range", 400, true},
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/statistics") {
				fmt.Fprint(w, `{}`)
				return
			}
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.answer)
		}))
		o := Options{StoreURL: server.URL}
		if test.prometheus {
			o = Options{Prometheus: server.URL}
		}
		if _, err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want one with %q", test.name, err, test.want)
		}
		server.Close()
	}
	if _, err := Run(t.Context(), Options{}); err == nil {
		t.Error("nothing to read was taken")
	}
	now := time.Now()
	if _, err := Run(t.Context(), Options{Prometheus: "http://127.0.0.1:1", Start: now, End: now.Add(-time.Hour)}); err == nil || !strings.Contains(err.Error(), "not before") {
		t.Errorf("error is %v", err)
	}
}
