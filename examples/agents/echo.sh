#!/bin/sh
# The smallest agent: it prints its task and calls it a success.
#
#   aglq run --tasks examples/agents/tasks.jsonl -- sh examples/agents/echo.sh
#
# The task is on standard input, and in the file that AGL_TASK_FILE names. The
# last line of standard output is the reward; all of the output is kept with the
# attempt. An exit status other than 0 makes the attempt a failed one.
set -eu

task=$(cat)
echo "rollout ${AGL_ROLLOUT_ID:-none} got $task"
echo 1
