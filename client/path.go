package client

import "fmt"

// pathOf puts what a caller names into an operation's path. What is empty, "." or ".." is refused: the path would come out as another
// operation's, so that to unsubscribe a user from the topic ".." would erase the user.
func pathOf(format string, names ...string) (string, error) {
	parts := make([]any, len(names))
	for i, name := range names {
		if name == "" || name == "." || name == ".." {
			return "", fmt.Errorf("client: %q cannot be named in %s", name, format)
		}
		parts[i] = name
	}
	return fmt.Sprintf(format, parts...), nil
}
