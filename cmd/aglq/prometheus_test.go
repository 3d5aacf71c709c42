package main

import (
	"strings"
	"testing"
)

// TestPrometheusForwards asks for a store's metrics at the address and the paths
// that the reference's scrape configuration names.
func TestPrometheusForwards(t *testing.T) {
	t.Parallel()
	store := start(t, nil, storeArgs("--tracker", "prometheus")...)
	p := start(t, nil, "prometheus", "--host", "127.0.0.1", "--port", "0", "--store-url", store.url(), "--access-log")
	url := p.url()
	for _, path := range []string{"/v1/prometheus", "/v1/prometheus/"} {
		if code, body := get(t, url+path); code != 200 || !strings.Contains(body, "process_open_fds") {
			t.Errorf("%s: %d %.200s", path, code, body)
		}
	}
	p.logged("path=/v1/prometheus/")
	if code, body := get(t, url+"/health"); code != 200 || body != `{"status":"ok"}` {
		t.Errorf("health is %d %s", code, body)
	}
	if code, _ := get(t, url+"/v1/agl/rollouts"); code != 404 {
		t.Errorf("more than metrics is forwarded: %d", code)
	}
	store.signal(9)
	store.exit(-1)
	if code, body := get(t, url+"/v1/prometheus"); code != 502 || !strings.Contains(body, "does not answer") {
		t.Errorf("without the store: %d %s", code, body)
	}
	p.signal(15)
	p.exit(143)
}
