// Package algorithm is the algorithm's side of the queue: it enqueues batches of
// tasks, hands back their results as they finish, and reads rewards out of
// spans. It needs nothing but a queue.Store, so an algorithm runs the same in
// one process with the store and over HTTP.
//
//	client := algorithm.New(store, algorithm.Options{})
//	batch, err := client.EnqueueBatch(ctx, tasks, algorithm.BatchOptions{Mode: queue.ModeTrain})
//	for result, err := range batch.Results(ctx) { … }
//
// Two ways of keeping workers busy come with it: [Client.Waves] enqueues a batch,
// waits for all of it and enqueues the next; [Client.InFlight] keeps a number of
// rollouts unfinished at any time.
//
// Each rollout carries the id of its batch in its metadata, so an algorithm that
// died finds its work again with [Client.Resume].
package algorithm
