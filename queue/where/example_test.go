package where_test

import (
	"fmt"

	"github.com/aglq/aglq/queue"
	"github.com/aglq/aglq/queue/rawjson"
	"github.com/aglq/aglq/queue/where"
)

func ExampleFilter_Match() {
	filter, err := where.Compile(`status == "failed" and metadata.project == "x"`)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, project := range []string{"x", "y"} {
		r := &queue.AttemptedRollout{Rollout: queue.Rollout{
			RolloutID: "ro-1", Status: queue.RolloutFailed, Metadata: rawjson.Value(`{"project":"` + project + `"}`),
		}}
		matches, err := filter.Match(r, nil)
		fmt.Println(project, matches, err)
	}
	// Output:
	// x true <nil>
	// y false <nil>
}
