//! Reads from a documentation page what has to be run; `CONTRIBUTING.md` says how it is written there.

use super::words::{self, open};

/// What a reader does, in the order of the page.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Types a command and sees this output.
    Run { terminal: String, command: String, shown: Vec<String>, stays: bool },
    /// Sees this output from what runs in a terminal.
    Await { terminal: String, shown: Vec<String> },
    /// Presses Ctrl-C.
    Interrupt { terminal: String },
    /// Writes a file.
    File { name: String, text: String },
    /// Reads TOML or JSON, which has to be valid. (The command that reads a file checks its contents.)
    Check { language: String, text: String },
    /// Reads a command that is not run here, for this reason.
    Leave { command: String, reason: String },
}

/// A page: each step with its line, each command in its prose, and what is written incorrectly.
#[derive(Debug, Default)]
pub struct Page {
    pub steps: Vec<(usize, Step)>,
    pub mentioned: Vec<(usize, String)>,
    pub faults: Vec<String>,
}

/// What comments before a fence say about it.
#[derive(Default)]
struct Marks {
    terminal: Option<String>,
    reason: Option<String>,
    file: Option<String>,
    stays: bool,
}

/// Programs whose command lines must not be hidden in another kind of fence.
const PROGRAMS: &str = "eventlog-server eventlog cargo curl docker kubectl node npm openssl psql \
                        sqlite3 sudo systemctl";

pub fn read(text: &str) -> Page {
    let mut page = Page::default();
    let mut marks = Marks::default();
    let mut prose = (0, String::new());
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    while let Some((number, line)) = lines.next() {
        let start = line.trim_start();
        if start.starts_with("```") {
            let ticks: String = start.chars().take_while(|tick| *tick == '`').collect();
            let indent = line.len() - start.len();
            let body = lines.by_ref().take_while(|(_, line)| line.trim() != ticks);
            let body = body.map(|(number, line)| (number, strip(line, indent))).collect::<Vec<_>>();
            let language = start[ticks.len()..].split([',', ' ']).next().unwrap_or_default();
            page.fence(language, &body, std::mem::take(&mut marks), number);
        } else if let Some(mark) = start.strip_prefix("<!--") {
            let mut mark = mark.to_owned();
            while !mark.contains("-->") {
                let Some((_, line)) = lines.next() else { break };
                mark = mark + "\n" + line;
            }
            page.mark(mark.trim_end().trim_end_matches("-->"), &mut marks, number);
        } else if !line.trim().is_empty() {
            marks = Marks::default();
            if line.starts_with("    ") && is_command(start) {
                page.faults.push(format!("{number}: a command in an indented block: `{start}`"));
            }
            if prose.1.is_empty() {
                prose.0 = number;
            }
            prose.1 = prose.1 + line + " ";
            continue;
        }
        page.mention(std::mem::take(&mut prose));
    }
    page.mention(prose);
    page
}

/// `line` without its first spaces, up to this many.
fn strip(line: &str, indent: usize) -> &str {
    &line[line.len() - line.trim_start_matches(' ').len().max(line.len().saturating_sub(indent))..]
}

/// Whether it begins with the name of a program, and there is more after it.
fn is_command(line: &str) -> bool {
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let commands = words::commands(line);
    let Some(words) = commands.first() else { return false };
    let mut words = words.iter().skip_while(|word| words::is_assignment(word));
    words.next().is_some_and(|first| PROGRAMS.split(' ').any(|program| program == first))
        && words.next().is_some_and(|second| second != "=")
}

impl Page {
    /// What an HTML comment says about the fence below it; other comments are ignored.
    fn mark(&mut self, mark: &str, marks: &mut Marks, number: usize) {
        let (name, rest) = mark.trim().split_once([' ', '\n']).unwrap_or((mark.trim(), ""));
        let rest = rest.trim();
        match name {
            "terminal" => marks.terminal = Some(rest.to_owned()),
            "file:" => marks.file = Some(rest.to_owned()),
            "stays" => marks.stays = true,
            "not" if rest.starts_with("run") => {
                let reason = rest.trim_start_matches("run").trim_start_matches(':').trim();
                if reason.is_empty() {
                    self.faults.push(format!("{number}: `not run` without a reason"));
                }
                marks.reason = Some(reason.to_owned());
            }
            // In a terminal of its own, which no reader sees.
            "setup" => {
                let body: Vec<_> = rest.lines().map(|line| (number, line)).collect();
                let terminal = Some(format!("setup, line {number}"));
                self.fence("sh", &body, Marks { terminal, ..Marks::default() }, number);
            }
            _ => {}
        }
    }

    fn fence(&mut self, language: &str, body: &[(usize, &str)], marks: Marks, number: usize) {
        let text = body.iter().flat_map(|(_, line)| [line, "\n"]).collect::<String>();
        if let Some(name) = marks.file.clone() {
            self.steps.push((number, Step::File { name, text: text.clone() }));
        }
        match language {
            "console" | "sh" => self.commands(language == "sh", body, marks),
            _ => {
                let hidden = body.iter().find(|(_, line)| is_command(line));
                if let Some((number, line)) = hidden {
                    self.faults
                        .push(format!("{number}: a command in a fence {language:?}: `{line}`"));
                } else if ["toml", "json"].contains(&language)
                    && marks.reason.is_none()
                    && marks.file.is_none()
                {
                    self.steps.push((number, Step::Check { language: language.to_owned(), text }));
                }
            }
        }
    }

    /// The steps of a fence; in an `sh` fence, each line is a command.
    fn commands(&mut self, bare: bool, body: &[(usize, &str)], marks: Marks) {
        let terminal = marks.terminal.unwrap_or_else(|| "1".to_owned());
        let first = self.steps.len();
        let mut lines = body.iter().copied();
        while let Some((number, line)) = lines.next() {
            let command = if bare { Some(line) } else { line.strip_prefix("$ ") };
            let terminal = terminal.clone();
            let step = match command {
                Some(command) if bare && (line.is_empty() || line.starts_with('#')) => {
                    let _ = command;
                    continue;
                }
                Some(command) => {
                    let mut command = command.to_owned();
                    while open(&command) {
                        let Some((_, line)) = lines.next() else { break };
                        command = command + "\n" + line;
                    }
                    match &marks.reason {
                        Some(reason) => Step::Leave { command, reason: reason.clone() },
                        None => Step::Run {
                            stays: words::stays(&command),
                            terminal,
                            command,
                            shown: vec![],
                        },
                    }
                }
                None if marks.reason.is_some() => continue,
                None if line == "^C" => Step::Interrupt { terminal },
                None => {
                    match self.steps.get_mut(first..).and_then(<[_]>::last_mut) {
                        Some((_, Step::Run { shown, .. } | Step::Await { shown, .. })) => {
                            shown.push(line.to_owned());
                        }
                        _ => {
                            let shown = vec![line.to_owned()];
                            self.steps.push((number, Step::Await { terminal, shown }));
                        }
                    }
                    continue;
                }
            };
            self.steps.push((number, step));
        }
        if let (true, Some((_, Step::Run { stays, .. }))) = (marks.stays, self.steps.last_mut()) {
            *stays = true;
        }
    }

    /// Commands of this program between backticks.
    fn mention(&mut self, (number, prose): (usize, String)) {
        let spans = prose.split('`').skip(1).step_by(2);
        let commands = spans.filter(|span| span.starts_with("eventlog-server "));
        self.mentioned.extend(commands.map(|span| (number, span.to_owned())));
    }
}
