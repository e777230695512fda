// Package coverage counts how many entry points of libibverbs and librdmacm a
// Go program can really reach. An entry point of docs/verbs-api.tsv counts when
//
//  1. the body of a C function of internal/ibv calls it (comments, strings,
//     macro definitions and what the preprocessor leaves out do not count, nor
//     does the list of symbols of the loader);
//  2. a Go file calls that function as C.name, or one that leads to it;
//  3. the doc comment of an exported declaration of a public package names it
//     in its "Verb:" list.
package coverage
