package main

import (
	"context"
	"iter"

	"github.com/urfave/cli/v3"

	"github.com/aglq/aglq/algorithm/adapter"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/where"
)

func whereFlag(what string) cli.Flag {
	return &cli.StringFlag{
		Name: "where", Validator: validWhere,
		Usage: what + " of which `EXPRESSION` is true, as 'reward < 0.5 or status == \"failed\"'; see docs/datasets.md",
	}
}

func validWhere(text string) error {
	if err := notEmpty(text); err != nil {
		return err // "" is all, which nobody means who gives an expression
	}
	_, err := compileWhere(text)
	return err
}

// compileWhere reads a filter; "" is nil, all.
func compileWhere(text string) (*where.Filter, error) {
	if text == "" {
		return nil, nil
	}
	return where.Compile(text)
}

// matching passes on the rollouts that a filter, nil for none, is true of. An error
// is the last pair.
func matching(
	ctx context.Context, s *client.Client, rollouts iter.Seq2[queue.AttemptedRollout, error], filter *where.Filter,
) iter.Seq2[queue.AttemptedRollout, error] {
	if filter == nil {
		return rollouts
	}
	traces := adapter.Source{Store: s}.Traces
	if !filter.NeedsSpans() {
		traces = withoutSpans
	}
	return func(yield func(queue.AttemptedRollout, error) bool) {
		for t, err := range traces(ctx, rollouts) {
			met := err != nil
			if err == nil {
				met, err = filter.Match(&t.Rollout, t.Spans)
			}
			if (met || err != nil) && !yield(t.Rollout, err) || err != nil {
				return
			}
		}
	}
}

// withoutSpans takes the place of [adapter.Source.Traces] where nobody looks at spans.
func withoutSpans(_ context.Context, rollouts iter.Seq2[queue.AttemptedRollout, error]) iter.Seq2[adapter.Trace, error] {
	return func(yield func(adapter.Trace, error) bool) {
		for r, err := range rollouts {
			if !yield(adapter.Trace{Rollout: r}, err) {
				return
			}
		}
	}
}
