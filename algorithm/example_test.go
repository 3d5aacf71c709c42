package algorithm_test

import (
	"context"
	"fmt"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/algorithm/internal/testagent"
	"github.com/aglq/aglq/collections/memory"
	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/store"
)

func ExampleClient_EnqueueBatch() {
	ctx := context.Background()
	s := store.New(memory.New(memory.Options{}), store.Options{})
	defer s.Close(ctx)

	tasks := []algorithm.Task{{Input: rawjson.Value(`{"question":"6*7"}`)}}
	batch, err := algorithm.New(s, algorithm.Options{}).EnqueueBatch(ctx, tasks, algorithm.BatchOptions{
		ID: "example", Mode: queue.ModeVal, Repeat: 2,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	// A worker's part, usually in another process.
	claimed, _ := s.Claim(ctx, queue.Claim{Limit: 2})
	for i, c := range claimed {
		_ = testagent.Finish(ctx, s, c, testagent.Rewarded(float64(i)))
	}

	results, err := batch.All(ctx)
	for _, group := range algorithm.Groups(results) {
		fmt.Println(group.DataID, algorithm.Rewards(group.Results), group.Advantages(), err)
	}
	// Output: example-0 [0 1] [-1 1] <nil>
}
