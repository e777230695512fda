// Package report writes results as one HTML file that needs nothing else: tables,
// charts and the data behind them, for `zrdma compare` and `zrdma bench`.
//
// The charts are drawn by Chart.js (MIT, chartjs/LICENSE.md), version 4.6.1 of the
// npm registry, which is put into the file with its licence. Without JavaScript
// the tables are still there: a chart shows nothing that no table has.
package report
