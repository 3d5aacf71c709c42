package main

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v3"
)

// metricsPath is where a store publishes its metrics.
const metricsPath = "/v1/prometheus"

func (a *app) prometheusCommand() *cli.Command {
	return &cli.Command{
		Name: "prometheus", Usage: "publish the metrics of a store at an address of their own, as agl prometheus does",
		Flags: flags([]cli.Flag{
			storeURLFlag(),
			&cli.StringFlag{Name: "host", Value: "0.0.0.0", Usage: "`ADDRESS` to listen on", Validator: notEmpty},
			&cli.IntFlag{Name: "port", Value: 4748, Usage: "`PORT` to listen on; 0 takes a free one", Validator: within(0, math.MaxUint16)},
			&cli.StringFlag{Name: "metrics-path", Value: metricsPath, Usage: "`PATH` of the metrics, with and without a slash at its end", Validator: validMetricsPath},
			&cli.BoolFlag{Name: "access-log", Usage: "log each request"},
		}, logFlags()),
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			store, err := storeURL(cmd)
			if err != nil {
				return err
			}
			return a.forwardMetrics(ctx, cmd, store, a.logger(cmd).of("prometheus"))
		}),
	}
}

func validMetricsPath(path string) error {
	if !strings.HasPrefix(path, "/") || strings.Trim(path, "/") == "" || strings.ContainsAny(path, "{}?# ") {
		return fmt.Errorf("it must begin with a slash and name something, as %s", metricsPath)
	}
	return nil
}

// forwardMetrics answers scrapes with what the store publishes, until ctx ends.
func (a *app) forwardMetrics(ctx context.Context, cmd *cli.Command, store string, log *slog.Logger) error {
	address := net.JoinHostPort(cmd.String("host"), strconv.Itoa(cmd.Int("port")))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen on %s: %w; give a free port, or stop what has taken it", address, err)
	}
	to, err := url.Parse(store)
	if err != nil {
		listener.Close()
		return err
	}
	server := &http.Server{
		Handler:           metricsForwarder(to, cmd.String("metrics-path"), cmd.Bool("access-log"), log),
		ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	log.Info("listening", "address", listener.Addr().String(), "url", accessURL(cmd.String("host"), listener.Addr()), "store", store)
	select {
	case err := <-ended:
		return fmt.Errorf("serving on %s: %w", address, err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(a.signals.hard, time.Second)
	defer cancel()
	if server.Shutdown(grace) != nil {
		_ = server.Close()
	}
	<-ended
	return nil
}

// metricsForwarder serves the store's metrics at path, and its own health.
func metricsForwarder(store *url.URL, path string, access bool, log *slog.Logger) http.Handler {
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Path = metricsPath + "/"
			r.Out.URL.RawPath = ""
			r.SetURL(store)
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			log.Warn("the store does not answer", "error", err)
			http.Error(w, "the store does not answer: "+err.Error(), http.StatusBadGateway)
		},
	}
	path = strings.TrimRight(path, "/")
	mux := http.NewServeMux()
	mux.Handle("GET "+path, forward)
	mux.Handle("GET "+path+"/{$}", forward)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"status":"ok"}`))
	})
	if !access {
		return mux
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log.Info("request", "client", r.RemoteAddr, "method", r.Method, "path", r.URL.RequestURI())
		mux.ServeHTTP(w, r)
	})
}
