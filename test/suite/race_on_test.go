//go:build race

package suite_test

// raceDetector is on: it keeps records of what the program synchronised on, which
// grow by kilobytes for each object made and closed.
const raceDetector = true
