package fakellm_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/aglq/aglq/worker/llmproxy/fakellm"
)

func ExampleNew() {
	upstream := httptest.NewServer(fakellm.New(func(r fakellm.Request) fakellm.Answer {
		return fakellm.Answer{Text: strings.ToUpper(r.Prompt())}
	}))
	defer upstream.Close()
	body := `{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hello there"}]}`
	resp, err := http.Post(upstream.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	fmt.Println(strings.Count(string(text), "HELLO"), strings.Count(string(text), " THERE"))
	// Output: 1 1
}
