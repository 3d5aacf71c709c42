package main

import (
	"log/slog"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/metrics"
	"github.com/aglq/aglq/queue/httpapi"
	"github.com/aglq/aglq/queue/store"
)

// newAPI puts the store behind HTTP, with what the options ask for around it.
func newAPI(cmd *cli.Command, s *store.Store, recorder *metrics.Recorder, log *slog.Logger) *httpapi.Server {
	return httpapi.New(s, httpapi.Options{})
}
