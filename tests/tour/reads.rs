//! What is read from a page, and what counts as shown.

use super::page::{Step, read};
use super::{shown, words};

fn run(terminal: &str, command: &str, shown: &[&str]) -> Step {
    let (terminal, command) = (terminal.to_owned(), command.to_owned());
    let shown = shown.iter().map(ToString::to_string).collect();
    Step::Run { stays: words::stays(&command), terminal, command, shown }
}

#[test]
fn commands_have_their_terminal_and_what_is_shown_below_them() {
    let page = read(
        "<!-- terminal 2 -->\n```console\n$ eventlog-server tail --key a\n     1  …\n$ echo '{\n}'\n{\n}\n```\n\
         1. In a list:\n\n   ```sh\n   # a comment\n   cat <<END |\n   x\n   END\n   echo a \\\n     b\n   ```\n\
         ```console\n^C\nbye\n```\n",
    );
    let steps: Vec<_> = page.steps.into_iter().map(|(_, step)| step).collect();
    let expected = [
        run("2", "eventlog-server tail --key a", &["     1  …"]),
        run("2", "echo '{\n}'", &["{", "}"]),
        run("1", "cat <<END |\nx\nEND", &[]),
        run("1", "echo a \\\n  b", &[]),
        Step::Interrupt { terminal: "1".to_owned() },
        Step::Await { terminal: "1".to_owned(), shown: vec!["bye".to_owned()] },
    ];
    assert_eq!(steps, expected);
    assert_eq!(page.faults, [""; 0]);
}

#[test]
fn files_checks_setups_and_what_is_left_out() {
    let page = read(
        "<!-- file: a.toml -->\n```toml\nx = 1\n```\n```json\n1\n```\n<!-- not run: builds the program -->\n```sh\ncargo test\n```\n\
         <!-- not run: -->\n```sh\ntrue\n```\n<!-- setup\ntrue\n-->\nUse `eventlog-server tail\n--key` or `this`.\n",
    );
    let step = |index: usize| &page.steps[index].1;
    assert_eq!(*step(0), Step::File { name: "a.toml".to_owned(), text: "x = 1\n".to_owned() });
    assert_eq!(*step(1), Step::Check { language: "json".to_owned(), text: "1\n".to_owned() });
    let reason = "builds the program".to_owned();
    assert_eq!(*step(2), Step::Leave { command: "cargo test".to_owned(), reason });
    assert_eq!(*step(4), run("setup, line 16", "true", &[]));
    assert_eq!(page.mentioned, [(19, "eventlog-server tail --key".to_owned())]);
    assert!(page.faults.len() == 1 && page.faults[0].contains("without a reason"), "{page:?}");
}

#[test]
fn a_command_cannot_stand_in_any_other_form() {
    for text in [
        "    eventlog-server tail --key a\n",
        "    $ X=1 eventlog-server tail --key a\n",
        "```text\neventlog-server tail --key a\n```\n",
        "```bash\ncurl localhost\n```\n",
        "1. so\n\n   ```\n   $ cargo test\n   ```\n",
    ] {
        assert_eq!(read(text).faults.len(), 1, "{text}");
    }
    for text in ["    data_dir = \"x\"\n", "```text\ncurl\n```\n", "```text\n1 cargo test\n```\n"] {
        assert_eq!(read(text).faults, [""; 0], "{text}");
    }
}

#[test]
fn what_differs_each_time_is_alike_and_nothing_else() {
    for (shown, printed) in [
        ("at 2026-03-01T09:30:00.000Z", "at 2027-04-02T10:31:01.1Z"),
        ("id 018bcfe5-6800-70e1-8101-010101010101.", "id 118bcfe5-6800-70e1-8101-010101010102."),
        ("after 12 ms, 3s", "after 1.5 s, 40ms"),
        ("a … c", "a b c"),
        ("…", ""),
    ] {
        assert!(shown::line(shown, printed), "{shown} {printed}");
    }
    for (shown, printed) in [("1 key", "2 key"), ("a … c", "a b d"), ("a", "ab"), ("a…ba", "aba b")]
    {
        assert!(!shown::line(shown, printed), "{shown} {printed}");
    }
    let lines = |text: &str| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>();
    assert!(shown::all(&lines("a\n…\nd\n"), &lines("a\nb\nc\nd\n\n")));
    assert!(shown::all(&lines("a\n…"), &lines("a")));
    assert!(!shown::all(&lines("a\n…\nd"), &lines("a\nb")));
    assert!(!shown::all(&lines("a"), &lines("a\nb")));
}

#[test]
fn what_is_called_is_seen_through_quotes_and_pipes() {
    let commands =
        words::commands("A=1 x/eventlog tail --key 'a | b' | jq . # and\nB=2 $(c \"d \\\"e\")");
    let expected: [&[&str]; 5] = [
        &["A=1", "x/eventlog", "tail", "--key", "a | b"],
        &["jq", "."],
        &["B=2", "$"],
        &["c", "d \"e"],
        &[],
    ];
    assert_eq!(commands, expected[..4]);
    assert_eq!(words::ours(&commands[0]).expect("ours")[0], "tail");
    assert!(words::ours(&commands[1]).is_none());
    assert!(words::stays("eventlog-server serve --dev") && words::stays("curl -N x"));
    assert!(!words::stays("eventlog-server tail --key a --count 1 | jq"));
}
