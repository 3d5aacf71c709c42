package main

import (
	"context"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/queue/client"
)

func (a *app) healthcheckCommand() *cli.Command {
	return &cli.Command{
		Name: "healthcheck", Usage: "ask a store whether it is well: exit status 0 or 1",
		Flags: []cli.Flag{
			&cli.StringFlag{
				Name: "url", Value: localStoreURL, Sources: cli.EnvVars("AGL_STORE_URL"),
				Usage: "`URL` of the store", Validator: validStoreURL,
			},
			&secondsFlag{Name: "within", Value: 5 * time.Second, Usage: "`SECONDS` to wait for the answer"},
		},
		Action: a.action(func(ctx context.Context, cmd *cli.Command) error {
			if err := noArgs(cmd); err != nil {
				return err
			}
			c := client.New(cmd.String("url"), client.Options{RequestTimeout: max(cmd.Duration("within"), time.Millisecond)})
			defer c.Close()
			return c.Healthy(ctx)
		}),
	}
}
