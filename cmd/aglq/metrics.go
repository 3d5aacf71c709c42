package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/worker"
)

func trackerFlag() cli.Flag {
	return &cli.StringSliceFlag{
		Name: "tracker", Validator: eachOneOf("prometheus", "console"),
		Usage: "`WAY` to publish metrics: prometheus (at /metrics and /v1/prometheus), console (a line every 10 s), or both",
	}
}

func metricsAddrFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "metrics-addr", DefaultText: "none", Validator: validMetricsAddr,
		Usage: "`ADDRESS` to publish metrics for Prometheus at, as :9464 or 127.0.0.1:9464; port 0 takes a free one",
	}
}

func validMetricsAddr(text string) error {
	if text == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(text); err != nil {
		return fmt.Errorf("it must be host:port, as 127.0.0.1:9464, or :9464 for all addresses")
	}
	return nil
}

// recorder is what the process records to, nil where nobody asks for metrics.
// One process has one, whatever its roles.
func (a *app) recorder(cmd *cli.Command) *metrics.Recorder {
	if a.metrics != nil {
		return a.metrics
	}
	o := metrics.Options{Prometheus: cmd.String("metrics-addr") != ""}
	for _, tracker := range cmd.StringSlice("tracker") {
		switch tracker {
		case "prometheus":
			o.Prometheus = true
		case "console":
			if cmd.String("log-format") == "json" {
				o.ConsoleLog = slog.New(a.logger(cmd).handler).With("part", "metrics") // asked for, whatever the level
			} else {
				o.Console = a.stderr
			}
		}
	}
	if o.Prometheus || o.Console != nil || o.ConsoleLog != nil {
		a.metrics = metrics.New(o)
	}
	return a.metrics
}

// workerObserver is nil where nobody asks for metrics.
func (a *app) workerObserver(cmd *cli.Command) worker.Observer {
	if recorder := a.recorder(cmd); recorder != nil {
		return recorder.Worker()
	}
	return nil
}

// algorithmObserver is nil where nobody asks for metrics.
func (a *app) algorithmObserver(cmd *cli.Command) algorithm.Observer {
	if recorder := a.recorder(cmd); recorder != nil {
		return recorder.Algorithm()
	}
	return nil
}

// serveMetrics answers scrapes at --metrics-addr until stop is called, if it is
// given.
func (a *app) serveMetrics(cmd *cli.Command, log *slog.Logger) (stop func(), err error) {
	addr := cmd.String("metrics-addr")
	if addr == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("cannot listen on --metrics-addr %s: %w; give a free port, or stop what has taken it", addr, err)
	}
	handler := a.recorder(cmd).Handler()
	mux := http.NewServeMux()
	for _, path := range []string{"/metrics", "/v1/prometheus", "/v1/prometheus/{$}"} {
		mux.Handle("GET "+path, handler)
	}
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are no longer served", "error", err)
		}
	}()
	log.Info("serving metrics", "address", listener.Addr().String(), "url", accessURL(host(addr), listener.Addr())+"/metrics")
	return func() {
		// A scrape is short, and nobody's work depends on it.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			_ = server.Close()
		}
		<-ended
	}, nil
}

// host is that of host:port; all addresses where there is none.
func host(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	if host == "" {
		return "0.0.0.0"
	}
	return host
}
