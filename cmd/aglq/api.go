package main

import (
	"log/slog"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/httpapi/dashboard"
	"github.com/aglq/aglq/queue/store"
)

// newAPI puts the store behind HTTP, with what the options ask for around it. A
// nil recorder records nothing.
func newAPI(cmd *cli.Command, s *store.Store, recorder *metrics.Recorder, log *slog.Logger) *httpapi.Server {
	o := httpapi.Options{CORSOrigins: cmd.StringSlice("cors-origin"), Dashboard: dashboard.FS(), Archive: s, Logger: log}
	if recorder == nil {
		return httpapi.New(s, o)
	}
	o.Metrics, o.Observe = recorder.Handler(), recorder.HTTP
	return httpapi.New(recorder.Store(s), o)
}
