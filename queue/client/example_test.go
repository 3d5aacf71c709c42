package client_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/client"
	"github.com/aglq/aglq/queue/rawjson"
)

func ExampleNew() {
	c := client.New("http://localhost:4747", client.Options{})
	defer c.Close()
	ctx := context.Background()
	rollouts, err := c.Enqueue(ctx, []queue.Request{{Input: rawjson.Value(`{"question":"6 x 7"}`)}})
	if err != nil {
		log.Fatal(err)
	}
	done, err := c.Wait(ctx, []string{rollouts[0].RolloutID}, time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range done {
		fmt.Println(r.RolloutID, r.Status)
	}
}
