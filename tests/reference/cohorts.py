#!/usr/bin/env python3
"""Reference cohorts for Tidegate, computed from the definition alone (docs/cohorts.md).

pip install xxhash; python3 tests/reference/cohorts.py > tests/reference/cohorts.json
"""
import json, math, random
import xxhash


def assign(salt, versions, key):
    def score(name, weight):
        h = xxhash.xxh3_64_intdigest(b"\x1f".join([salt.encode(), name.encode(), key.encode()]))
        u = ((h >> 12) + 0.5) / 2**52
        return -math.log(u) / weight

    return min((v for v in versions if v[1] > 0), key=lambda v: score(*v))[0]


def main():
    draw = random.Random(42)
    cases = []
    for i in range(600):
        names = draw.sample(["v41", "v42", "v43", "blue", "green", "2024-06-01", "é"], draw.randint(2, 5))
        versions = [[n, draw.choice([0, 0.5, 1, 5, 12.25, 95, 1000])] for n in names]
        versions[0][1] = versions[0][1] or 1
        salt = draw.choice(["", "release-42", "s"])
        key = draw.choice([f"player-{i}", f"192.0.2.{i % 256}", "k" * draw.randint(1, 600), f"ключ-{i}"])
        cases.append({"salt": salt, "versions": versions, "key": key, "assigned": assign(salt, versions, key)})
    print("[\n" + ",\n".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n]")


main()
