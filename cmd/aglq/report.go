package main

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/benchmarks/promreport"
)

// reportCommand is both aglq report and aglq bench report.
func (a *app) reportCommand() *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "print what a store did in a stretch of time: rates and latencies by route, call and collection",
		Description: "It asks a Prometheus that scrapes the store, or scrapes the store itself from now on, for --duration.",
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "prometheus", Aliases: []string{"prom-url"}, Validator: validStoreURL, DefaultText: "none: scrape the store",
				Usage: "`URL` of a Prometheus, as http://localhost:9090",
			},
			storeURLFlag(),
			&secondsFlag{Name: "duration", Value: 5 * time.Minute, Usage: "`SECONDS` to report on"},
			&cli.StringFlag{Name: "start", Validator: validTime, DefaultText: "--duration before the end", Usage: "`TIME` at which the report begins, as 2026-01-31T12:00:00Z or Unix seconds; with --prometheus"},
			&cli.StringFlag{Name: "end", Validator: validTime, DefaultText: "now", Usage: "`TIME` at which the report ends; with --prometheus"},
			&secondsFlag{Name: "timeout", Value: 10 * time.Second, Usage: "`SECONDS` that one request may take"},
			figuresFlag(),
		},
		Action: a.action(a.printReport),
	}
}

func (a *app) printReport(ctx context.Context, cmd *cli.Command) error {
	url, err := onlyStoreURL(cmd)
	if err != nil {
		return err
	}
	o := promreport.Options{
		Prometheus: cmd.String("prometheus"), StoreURL: url, Duration: cmd.Duration("duration"), Timeout: cmd.Duration("timeout"),
	}
	if o.Duration <= 0 || o.Timeout <= 0 {
		return usagef(cmd, "--duration and --timeout must be above 0")
	}
	if o.Prometheus == "" && (cmd.IsSet("start") || cmd.IsSet("end")) {
		return usagef(cmd, "--start and --end need --prometheus: a store only tells what it does from now on")
	}
	if o.Prometheus != "" && !cmd.IsSet("store-url") {
		o.StoreURL = "" // the totals of a store that nobody named
	}
	o.Start, _ = parseTime(cmd.String("start")) // checked by the options
	o.End, _ = parseTime(cmd.String("end"))
	found, err := promreport.Run(ctx, o)
	if err != nil {
		return err
	}
	return a.showOutcome(cmd, found)
}

func validTime(text string) error {
	_, err := parseTime(text)
	return err
}

// parseTime reads a time; "" is none.
func parseTime(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if s, err := strconv.ParseFloat(text, 64); err == nil && s > 0 && s < math.MaxInt64/1e9 {
		return time.Unix(0, int64(s*1e9)), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("it must be a time, as 2026-01-31T12:00:00Z, or Unix seconds")
	}
	return t, nil
}
