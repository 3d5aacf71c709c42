// Package verify tests a running aglq as its users depend on it: it drives mixed
// traffic against stores, writes down every call with its times and outcome,
// breaks processes and connections meanwhile, and then checks that what the
// callers were told is what a queue that loses nothing could have told them.
//
// A run has these parts:
//
//   - the deployment ([deployment]): store processes, a MongoDB replica set and
//     proxies before them, started here, or the URLs of stores that run already;
//   - the traffic: clients in this process and in worker processes, which claim
//     and are killed;
//   - the faults: a schedule made from a seed;
//   - the history: one [Call] a call, one [Fault] a fault, and at the end one
//     [Final] a rollout;
//   - the checks: the calls that concern one rollout against a model of its
//     life, by porcupine, and what must hold of the history as a whole.
//
// A call ends in one of three ways. Ok: it was answered. Refused: the store said
// that it did nothing, or it was never reached. Unknown: anything else; such a
// call may have taken effect, may take effect at any later time, or never.
//
// The model ([life]) is written from the rules in docs/architecture.md, not from
// the code that it tests.
package verify
