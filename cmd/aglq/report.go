package main

import (
	"context"
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
			momentFlag("start", "--duration before the end", "with --prometheus: `TIME` at which the report begins"),
			momentFlag("end", "now", "with --prometheus: `TIME` at which the report ends"),
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
	now := time.Now()
	o.Start, o.End = moment(cmd, "start", now), moment(cmd, "end", now)
	found, err := promreport.Run(ctx, o)
	if err != nil {
		return err
	}
	return a.showOutcome(cmd, found)
}
