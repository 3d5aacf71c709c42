// Package climb is an algorithm of one's own in its simplest form. It runs on
// any store: in this process, or behind a URL by client.New.
package climb

import (
	"context"
	"math"

	"github.com/aglq/aglq/algorithm"
	"github.com/aglq/aglq/queue/rawjson"
)

// Climb looks for the number that earns the highest reward. A round has the
// agents try nine numbers around the best one, each round half as far apart.
func Climb(ctx context.Context, client *algorithm.Client) (best, reward float64, err error) {
	reward = math.Inf(-1)
	for step := 2.0; step > 0.01; step /= 2 {
		var tasks []algorithm.Task
		for i := -4; i <= 4; i++ {
			tasks = append(tasks, algorithm.Task{Input: rawjson.AppendFloat(nil, best+float64(i)*step)})
		}
		batch, err := client.EnqueueBatch(ctx, tasks, algorithm.BatchOptions{})
		if err != nil {
			return best, reward, err
		}
		for result, err := range batch.Results(ctx) { // as they finish
			if err != nil {
				return best, reward, err
			}
			if r, ok := result.FiniteReward(); ok && r > reward {
				reward = r
				best, _ = result.Rollout.Input.Float()
			}
		}
	}
	return best, reward, nil
}
