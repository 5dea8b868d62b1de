// Package bench measures the promises about speed as ratios between contenders that take turns in one run, so that a
// slow or busy machine slows both. README.md keeps the figures with machine and commit.
package bench
