package main

import (
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

var servingMetrics = regexp.MustCompile(`msg="serving metrics" .*address=(\S+) url=(\S+)`)

// metricsURL waits for the line that says where the metrics are.
func (p *process) metricsURL() string {
	p.t.Helper()
	var m []string
	until(p.t, "the line about metrics", func() bool {
		m = servingMetrics.FindStringSubmatch(p.log.String())
		return m != nil || p.ended()
	})
	if m == nil {
		p.t.Fatalf("aglq ended without serving metrics:\n%s", p.log)
	}
	return "http://" + m[1]
}

// published waits until a scrape has all of the lines.
func published(t *testing.T, url string, lines ...string) {
	t.Helper()
	for _, line := range lines {
		until(t, line+" at "+url, func() bool {
			_, text := get(t, url)
			return strings.Contains(text, line)
		})
	}
}

func TestMetricsOfEveryRole(t *testing.T) {
	t.Parallel()
	p := start(t, nil, storeArgs("--tracker", "prometheus")...)
	url := p.url()
	for _, path := range []string{"/metrics", "/v1/prometheus", "/v1/prometheus/"} {
		published(t, url+path, `aglq_queue_depth{status="queuing"} 0`)
	}
	w := start(t, nil, "worker", "--store-url", url, "--metrics-addr", "127.0.0.1:0", "--", "sh", "-c", "echo 1")
	hold := filepath.Join(t.TempDir(), "hold")
	task := write(t, "train.jsonl", "{\"x\":0.5}\n")
	b := start(t, nil, "algorithm", "baseline", "--store-url", url, "--metrics-addr", "127.0.0.1:0", "--polling-interval", "0.05",
		"--train", task, "--epochs", "100000")
	published(t, b.metricsURL()+"/metrics", "aglq_algorithm_batch_latency_seconds_count ", `aglq_algorithm_rollouts_total{status="succeeded"} 1`)
	for _, path := range []string{"/metrics", "/v1/prometheus", "/v1/prometheus/"} {
		published(t, w.metricsURL()+path, `aglq_worker_tasks_total{status="succeeded"}`, "aglq_worker_slots 1", "go_goroutines")
	}
	if code, _ := get(t, w.metricsURL()+"/v1/agl/health"); code != 404 {
		t.Errorf("a worker serves more than metrics: status %d", code)
	}
	published(t, url+"/metrics", "aglq_queue_wait_seconds_count", `aglq_wakeup_seconds_count{call="claim"}`)
	b.signal(syscall.SIGTERM)
	b.exit(143)
	w.signal(syscall.SIGTERM)
	w.exit(143)

	// One process with all roles has all of them in one place.
	r := start(t, nil, "run", "--metrics-addr", "127.0.0.1:0", "--tasks", task, "--", "sh", "-c", "until [ -e "+hold+" ]; do sleep 0.05; done; echo 1")
	published(t, r.metricsURL()+"/metrics", "aglq_worker_inflight 1", "aglq_algorithm_inflight 1", `aglq_queue_depth{status="preparing"} 1`,
		`agl_store_total{method="dequeue_rollout"`)
}

func TestMetricsAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w := start(t, nil, "worker", "--metrics-addr", l.Addr().String(), "--", "true")
	w.exit(1)
	w.logged("give a free port")
	w = start(t, nil, "worker", "--metrics-addr", "9464", "--", "true")
	w.exit(2)
	w.logged("it must be host:port")
}
