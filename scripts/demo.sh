#!/usr/bin/env bash
# Trains four students that are too small to learn all of a toy by themselves (configs/spirals.toml),
# and 2, 8 and one of the same size and the same total work from the same teacher; draws samples of
# the shipped Fashion-MNIST models; writes one report of everything.
set -euo pipefail
cd "$(dirname "$0")/.."
atelier=build/release/atelier
run() { $atelier run configs/spirals.toml "$@"; }

run output=demo/spirals
# Updates of a student are in inverse proportion to K: 9600, 19200 and 6400 in all, as with K=4.
for students in 8 2 1; do
    run output=demo/spirals/k$students partition.students=$students \
        teacher.path=demo/spirals/teacher pairs.path=demo/spirals/pairs \
        tsm.steps=$((9600 / students)) dm.steps=$((19200 / students)) adm.steps=$((6400 / students))
done
for model in k4 teacher; do
    $atelier sample models/fashion-mnist/$model --count 100 --seed 1 --class 0,1,2,3,4,5,6,7,8,9 \
        --out demo/garments-$model.png
done
$atelier report demo/spirals models/fashion-mnist --out demo/report.html
echo
echo "demo/report.html shows 1, 2, 4 and 8 students of the same total training beside their teacher, and the shipped"
echo "models; demo/garments-k4.png and -teacher.png are the same hundred requests drawn in one step and in 35."
