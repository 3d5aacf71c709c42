package limit

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Server lends the slots of sessions to programs of this machine, over HTTP on a
// loopback address. Each session has a URL of its own that nobody can guess:
//
//	POST URL/GROUP          waits for a slot, and answers with its number as text
//	DELETE URL/GROUP/SLOT   returns it
//
// Status 404 says that there is no such session or slot, 410 that the session
// ended meanwhile. A caller that goes away while it waits gets no slot; all that
// was lent returns with the end of the session.
type Server struct {
	base string
	http http.Server
	end  context.CancelFunc // of what waits
	done sync.WaitGroup

	mu       sync.Mutex
	sessions map[string]*Session
}

// Listen starts a server; its end is Close.
func Listen() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for agents that ask for slots: %w", err)
	}
	s := &Server{base: "http://" + listener.Addr().String(), sessions: map[string]*Session{}}
	routes := http.NewServeMux()
	routes.HandleFunc("POST /{session}/{group}", s.lend)
	routes.HandleFunc("DELETE /{session}/{group}/{slot}", s.takeBack)
	open, end := context.WithCancel(context.Background())
	s.end = end
	s.http = http.Server{
		Handler: routes, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return open },
	}
	s.done.Go(func() { _ = s.http.Serve(listener) })
	return s, nil
}

// Close ends the server and what waits at it.
func (s *Server) Close() {
	s.end()
	soon, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.http.Shutdown(soon)
	_ = s.http.Close()
	s.done.Wait()
}

// Open puts a session behind a URL until end is called.
func (s *Server) Open(x *Session) (url string, end func()) {
	name := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[name] = x
	return s.base + "/" + name, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, name)
	}
}

func (s *Server) session(w http.ResponseWriter, r *http.Request) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.sessions[r.PathValue("session")]
	if x == nil {
		http.Error(w, "no task that runs has this URL", http.StatusNotFound)
	}
	return x
}

func (s *Server) lend(w http.ResponseWriter, r *http.Request) {
	x := s.session(w, r)
	if x == nil {
		return
	}
	// Only after it has read the request does a server see that a caller leaves.
	_, _ = io.Copy(io.Discard, io.LimitReader(r.Body, 1<<10))
	slot, err := x.take(r.Context(), r.PathValue("group"))
	switch {
	case errors.Is(err, ErrClosed):
		http.Error(w, ErrClosed.Error(), http.StatusGone)
	case err != nil:
		return // nobody is there any more
	case r.Context().Err() != nil:
		x.leave(slot)
	default:
		if _, err := fmt.Fprintln(w, slot); err != nil {
			x.leave(slot)
		}
	}
}

func (s *Server) takeBack(w http.ResponseWriter, r *http.Request) {
	x := s.session(w, r)
	if x == nil {
		return
	}
	slot, err := strconv.Atoi(r.PathValue("slot"))
	if err != nil || !x.leave(slot) {
		http.Error(w, "the task has no such slot", http.StatusNotFound)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
