// Package cem searches for the best parameters of an agent by the cross-entropy
// method. A round draws a population of parameter sets from a distribution, has
// the workers try each of them, and moves the distribution towards the best
// part of them, the elite.
//
// The distribution lives among the store's resources, where agents can read it
// and a restarted search finds it. Resources know language models and prompt
// templates only, so it is a prompt_template named "distribution" whose template
// text is the JSON of a [State]; the engine is jinja, which renders such JSON as
// it stands. Each round is a new version of the same resources id.
//
// A search is named by its run id and is deterministic: the same space, seed
// and rewards give the same populations. Run under the id of a search that was
// interrupted goes on where it stopped: rollouts of its last round that have
// finished meanwhile are used, not repeated.
package cem
