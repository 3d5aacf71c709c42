// Package apo improves a prompt by letting language models criticise and rewrite it,
// and by trying what they write: automatic prompt optimisation with textual
// gradients and beam search (Pryzant et al., "Automatic Prompt Optimization with
// 'Gradient Descent' and Beam Search", EMNLP 2023). Its parameters are those of the
// reference's APO.
//
// A round takes the prompts of the beam as parents. For each of several branches of
// each parent, agents run a batch of training tasks with it, one model says what is
// wrong with it in the light of what they did, and another rewrites it. Beam and
// candidates are scored on one batch of validation tasks; the best are the next
// beam. The leader is scored on all validation tasks, and is the best of the search
// when it is better than any before.
//
// A candidate that has lost one of the prompt's placeholders, or has others, is sent
// back to the model with what is wrong; one that stays wrong is dropped.
//
// Every prompt is a set of resources of its own, RUN-v0, RUN-v1 …; the resources RUN
// hold the best one and the state of the search. Batches have names within the run.
// So a search under the name of one that was interrupted goes on where that one
// stopped: it repeats neither rollouts nor rewrites that are stored, and, as all its
// draws follow from a seed, comes to the same result.
package apo
