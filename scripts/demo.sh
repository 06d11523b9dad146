#!/usr/bin/env bash
# The toy job, K=4 and the single student of the same size after the same teacher, each ending in a report.
set -euo pipefail
cd "$(dirname "$0")/.."
atelier=build/release/atelier
$atelier run configs/toy2d.toml output=demo/k4
$atelier run configs/toy2d.toml output=demo/k1 teacher.path=demo/k4/teacher partition.students=1
echo "Look at demo/k4/report.html and demo/k1/report.html"
