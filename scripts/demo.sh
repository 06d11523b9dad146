#!/usr/bin/env bash
# Runs the toy config (K=4, and a single student of the same size distilled from the same teacher),
# draws samples of the shipped Fashion-MNIST models, and writes one report of everything.
set -euo pipefail
cd "$(dirname "$0")/.."
atelier=build/release/atelier
$atelier run configs/toy2d.toml output=demo/toy
$atelier run configs/toy2d.toml output=demo/toy/k1 partition.students=1 teacher.path=demo/toy/teacher pairs.path=demo/toy/pairs
$atelier sample models/fashion-mnist/k4 --count 100 --seed 1 --class 0,1,2,3,4,5,6,7,8,9 --out demo/students.png
$atelier sample models/fashion-mnist/teacher --count 100 --seed 1 --class 0,1,2,3,4,5,6,7,8,9 --out demo/teacher.png
$atelier report demo/toy models/fashion-mnist --out demo/report.html
echo
echo "demo/report.html shows both; demo/students.png and demo/teacher.png are the same hundred images from students (1 step) and teacher (35)."
