"""Compares Parquet files with JSON lines of the same rows: compare.py STEM..."""

import json
import sys

import pyarrow.parquet

# The columns that are JSON text, for members that have no fixed form.
JSON_TEXT = {
    "tools", "prompt", "response", "logprobs", "image_urls", "request", "response_metadata",
    "status", "attributes", "events", "links", "context", "parent", "resource",
}


def flat_triplet(row):
    """A row of triplets as its columns have it."""
    prompt, response, metadata = row["prompt"], row["response"], row["metadata"]
    return {
        "prompt_token_ids": prompt["token_ids"],
        "response_token_ids": response["token_ids"],
        "reward": row["reward"],
        "final_reward": row["final_reward"],
        "prompt": prompt.get("raw_content"),
        "response": response.get("raw_content"),
        "logprobs": response.get("logprobs"),
        "image_urls": prompt.get("image_urls") or None,
        "request": metadata.get("request"),
        "response_metadata": metadata.get("response"),
        "response_id": metadata["response_id"],
        "agent_name": metadata.get("agent_name"),
        "rollout_id": row["rollout_id"],
        "attempt_id": row["attempt_id"],
        "sequence_id": metadata["sequence_id"],
        "span_id": metadata["span_id"],
    }


def without_nothing(value):
    """The value without members that are null or empty lists, which columns do not tell apart."""
    if isinstance(value, dict):
        return {k: without_nothing(v) for k, v in value.items() if v is not None and v != []}
    if isinstance(value, list):
        return [without_nothing(v) for v in value]
    return value


def main(stems):
    for stem in stems:
        with open(stem + ".jsonl") as lines:
            want = [json.loads(line) for line in lines]
        texts = set(JSON_TEXT)
        if "prompt-completion" in stem:
            texts.remove("prompt")
        got = pyarrow.parquet.read_table(stem + ".parquet").to_pylist()
        for row in got:
            for name in texts & row.keys():
                if row[name] is not None:
                    row[name] = json.loads(row[name])
        if want and "metadata" in want[0]:
            want = [flat_triplet(row) for row in want]
        if not want or without_nothing(want) != without_nothing(got):
            sys.exit(f"{stem}:\n{json.dumps(want, indent=1)}\nis not\n{json.dumps(got, indent=1, default=str)}")
    print(len(stems), "files are the same")


main(sys.argv[1:])
