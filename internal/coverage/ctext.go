package coverage

import (
	"regexp"
	"strings"
)

var (
	callRE   = regexp.MustCompile(`\b([A-Za-z_]\w*)\s*\(`)
	defineRE = regexp.MustCompile(`(?m)^[ \t]*#[ \t]*define[ \t]+(\w+)`)
)

// strip removes comments and strings; a string that lookedUp accepts names an
// entry point found at run time, and stands there as a call of it.
func strip(src string, lookedUp func(string) bool) string {
	var b strings.Builder
	for i := 0; i < len(src); {
		switch {
		case strings.HasPrefix(src[i:], "//"):
			for i < len(src) && src[i] != '\n' {
				i++
			}
		case strings.HasPrefix(src[i:], "/*"):
			end := strings.Index(src[i+2:], "*/")
			if end < 0 {
				return b.String()
			}
			b.WriteString(strings.Repeat("\n", strings.Count(src[i:i+2+end], "\n")) + " ")
			i += end + 4
		case src[i] == '"' || src[i] == '\'':
			q, j := src[i], i+1
			for j < len(src) && src[j] != q && src[j] != '\n' {
				if src[j] == '\\' {
					j++
				}
				j++
			}
			if j > len(src) {
				j = len(src)
			}
			if s := src[i+1 : j]; q == '"' && lookedUp(s) {
				b.WriteString(s + "()")
			} else {
				b.WriteString("0")
			}
			i = j + 1
		default:
			b.WriteByte(src[i])
			i++
		}
	}
	return b.String()
}

// preprocess drops directives and what they leave out. A macro counts as
// defined when a file here defines it; an #if that is not 0 keeps both branches.
func preprocess(src string, defined map[string]bool) string {
	src = strings.ReplaceAll(src, "\\\n", " ")
	var b strings.Builder
	var on []bool // one for each open #if
	for _, l := range strings.Split(src, "\n") {
		f := strings.Fields(strings.Replace(strings.TrimSpace(l), "#", "# ", 1))
		if len(f) < 2 || f[0] != "#" {
			if !contains(on, false) {
				b.WriteString(l)
			}
			b.WriteByte('\n')
			continue
		}
		arg := ""
		if len(f) > 2 {
			arg = f[2]
		}
		switch f[1] {
		case "if":
			on = append(on, arg != "0")
		case "ifdef":
			on = append(on, defined[arg])
		case "ifndef":
			on = append(on, true)
		case "else", "elif":
			if n := len(on); n > 0 && !on[n-1] {
				on[n-1] = true
			}
		case "endif":
			if n := len(on); n > 0 {
				on = on[:n-1]
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func contains(l []bool, v bool) bool {
	for _, x := range l {
		if x == v {
			return true
		}
	}
	return false
}

// functions gives, for every function defined in the text, what its body calls.
func functions(text string, into map[string]map[string]bool) {
	depth, start := 0, 0
	name := ""
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{':
			if depth == 0 {
				name = definedName(text[start:i])
				start = i
			}
			depth++
		case '}':
			if depth--; depth == 0 {
				if name != "" {
					add(into, name, text[start:i])
				}
				start = i + 1
			}
		case ';':
			if depth == 0 {
				start = i + 1
			}
		}
	}
}

// definedName is the function that a declaration in front of a body defines.
func definedName(head string) string {
	head = strings.TrimSpace(head)
	if !strings.HasSuffix(head, ")") {
		return ""
	}
	depth := 0
	for i := len(head) - 1; i >= 0; i-- {
		switch head[i] {
		case ')':
			depth++
		case '(':
			if depth--; depth == 0 {
				f := regexp.MustCompile(`([A-Za-z_]\w*)\s*$`).FindString(head[:i])
				return strings.TrimSpace(f)
			}
		}
	}
	return ""
}

func add(into map[string]map[string]bool, name, body string) {
	if into[name] == nil {
		into[name] = map[string]bool{}
	}
	for _, m := range callRE.FindAllStringSubmatch(body, -1) {
		into[name][m[1]] = true
	}
}
