package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/alecthomas/kong"
)

// commands is every subcommand; each has a file of its own.
type commands struct {
	Serve        serveCmd        `cmd:"" help:"Run a node."`
	Dev          devCmd          `cmd:"" help:"Run everything on this machine: server, simulated Apple and Google, a demo app. Prints its keys."`
	Device       deviceCmd       `cmd:"" help:"Be a phone: register, sleep, get woken, fetch, ack."`
	Send         sendCmd         `cmd:"" help:"Send a message, by default to the phone registered last; or to a user, a topic, everyone, later, or many out of a file."`
	Trace        traceCmd        `cmd:"" help:"Tell what became of a message, delivery by delivery."`
	Messages     messagesCmd     `cmd:"" help:"List, show and take back messages."`
	Devices      devicesCmd      `cmd:"" help:"List, show, change, wake and unregister an app's devices."`
	Users        usersCmd        `cmd:"" help:"Show what a user has, bind and unbind devices, erase a person."`
	Topics       topicsCmd       `cmd:"" help:"List, show and delete topics, subscribe devices and users."`
	Events       eventsCmd       `cmd:"" help:"List what happened to an app's messages, devices, credentials and ways to phones; events alone is events list."`
	Tail         tailCmd         `cmd:"" help:"Follow an app's events as they happen, a line each, until Ctrl-C."`
	Webhooks     webhooksCmd     `cmd:"" help:"Have the same events posted to a URL."`
	Apps         appsCmd         `cmd:"" help:"Create, list, show, change and delete apps."`
	Keys         keysCmd         `cmd:"" help:"Create, list, rotate and revoke an app's keys; generate the operator's."`
	IdentityKeys identityKeysCmd `cmd:"" help:"Put, list and delete what an app's user tokens are checked with."`
	UserToken    userTokenCmd    `cmd:"" help:"Sign a user token, for trying out; a backend signs its own."`
	Credentials  credentialsCmd  `cmd:"" help:"Put, list, verify and delete what an app speaks to Apple and Google with."`
	Sim          simCmd          `cmd:"" help:"Run the simulated Apple and Google alone."`
	Doctor       doctorCmd       `cmd:"" help:"Look at everything a node needs, whether it runs or not, and say what is wrong and what to do."`
	Backup       backupCmd       `cmd:"" help:"Write a backup of the database into a file, while nodes run."`
	Copy         copyCmd         `cmd:"" help:"Copy a database into another, of whichever engine: from SQLite to PostgreSQL and back. Goes on where it was cut off."`
	Migrate      migrateCmd      `cmd:"" help:"Show or bring up to date the database's schema."`
	Demo         demoCmd         `cmd:"" help:"Show in a few seconds that all of it works, on this machine alone."`
	Version      versionCmd      `cmd:"" help:"Print the version."`
}

// terminal is what a subcommand may touch of the world around the process.
type terminal struct {
	in       io.Reader
	out, err io.Writer
	env      map[string]string
	// lent is the setting in whose place a key of rouse dev's profile was used; empty if none was.
	lent string
	// command is what runs; nil before the arguments were understood.
	command *kong.Node
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// run is the whole program. It returns the exit code: 0 for success, 1 for
// failure, 2 for arguments or settings that make no sense. It returns when ctx
// ends and everything is put away.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	term := &terminal{in: stdin, out: stdout, err: stderr, env: parseEnv(environ)}
	exited := -1
	parser, err := kong.New(&commands{},
		kong.Name("rouse"),
		kong.Description("Rouse wakes sleeping phones and hands them their messages."),
		kong.UsageOnError(),
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exited = code }),
		kong.Resolvers(kong.ResolverFunc(term.setting)),
		kong.ValueFormatter(helpWithSetting),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	if err != nil {
		fmt.Fprintln(stderr, "rouse:", err)
		return exitFailed
	}
	parsed, err := parser.Parse(args)
	if exited >= 0 { // --help was printed
		return exited
	}
	if err != nil {
		fmt.Fprintf(stderr, "rouse: %v\n%s says what it takes.\n", err, helpFor(err))
		return exitUsage
	}
	term.command = parsed.Selected()
	if err := astray(parsed); err != nil {
		return report(stderr, err)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return report(stderr, term.explain(term.putPlainly(parsed.Run(term))))
}

// explain adds to a refusal of a key where the key came from, if the caller did not choose it.
func (t *terminal) explain(err error) error {
	if t.lent == "" || !hasStatus(err, http.StatusUnauthorized) {
		return err
	}
	path, pathErr := t.profilePath()
	if pathErr != nil { // the key was read there, so it is known
		return err
	}
	return fmt.Errorf("%w; this was the key of `rouse dev` from %s: set %s for another server", err, path, t.lent)
}

// report tells why a subcommand failed, once, and how to exit.
func report(stderr io.Writer, err error) int {
	var usage *usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintln(stderr, "rouse:", err)
		return exitUsage
	default:
		fmt.Fprintln(stderr, "rouse:", err)
		return exitFailed
	}
}

// usageError is a mistake of the caller: arguments or settings.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// mistake makes a usageError.
func mistake(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// parseEnv turns "NAME=value" into a map; of a repeated name the last counts.
func parseEnv(environ []string) map[string]string {
	env := make(map[string]string, len(environ))
	for _, entry := range environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	return env
}

// setting gives a flag that was left out the value of its environment
// variable, named by the tag `setting`. An empty variable counts as left out.
func (t *terminal) setting(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	name := flag.Tag.Get("setting")
	if value := t.env[name]; name != "" && value != "" {
		return value, nil
	}
	return nil, nil
}

// helpWithSetting names the environment variable beside the flag.
func helpWithSetting(value *kong.Value) string {
	if name := value.Tag.Get("setting"); name != "" {
		return strings.TrimSuffix(value.Help, ".") + " ($" + name + ")."
	}
	return value.Help
}
