//! `man`: the manual page, made of what `--help` says of each command.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::output::write;
use super::{Cli, Failure};

/// When the sections below were last changed.
const DATE: &str = "2026-11-30";

/// The sections that are no command's.
const SECTIONS: &str = r#".SH FILES
.TP
\fI./damoov\-proxy.toml\fR, \fI/etc/damoov\-proxy/config.toml\fR
The configuration, if neither \fB\-\-config\fR nor \fBDAMOOV_PROXY_CONFIG\fR names one.
It must not be writable for group or others.
.TP
\fI/var/lib/damoov\-proxy\fR
The store, unless \fB[store] path\fR says otherwise.
Never copy its files while a process uses them: \fBdamoov\-proxy tokens backup\fR does.
.SH ENVIRONMENT
.TP
\fBDAMOOV_PROXY_CONFIG\fR
The configuration's file.
.TP
\fBDAMOOV_PROXY__SECTION__KEY\fR
Overrides one key of the configuration, as in \fBDAMOOV_PROXY__STORE__PATH\fR.
.TP
\fBDAMOOV_PROXY_LOG\fR
The log's level, instead of \fB[log] level\fR.
.TP
\fBNOTIFY_SOCKET\fR, \fBWATCHDOG_USEC\fR, \fBWATCHDOG_PID\fR
Where systemd is told that the process is ready, reloads, lives and ends.
.TP
\fBLISTEN_FDS\fR, \fBLISTEN_PID\fR
Sockets that systemd has opened.
Each must be one that the configuration names.
.TP
\fBNO_COLOR\fR
If it is set, nothing is printed in colours, even to a terminal.
.SH SIGNALS
.TP
\fBSIGTERM\fR
The process is not ready any more, accepts connections for \fBdrain_delay\fR, and ends the answers under
way within \fBdrain_timeout\fR.
.TP
\fBSIGINT\fR
The same without the delay.
A second one of either cuts the answers off.
.TP
\fBSIGHUP\fR
The configuration is read again.
.SH EXIT STATUS
.TP
0
Done.
.TP
1
A failure of the moment: try again.
.TP
2
The command line is wrong.
.TP
64
The configuration is wrong.
.TP
65
Some lines of the input are bad.
.TP
75
Interrupted; what is done stays done.
.TP
78
The store cannot be used as it is.
.SH SEE ALSO
.BR systemd.service (5),
.BR systemd.socket (5)
"#;

/// Longer lines are broken between words.
const WIDTH: usize = 80;

/// Prints the page.
pub fn run() -> Result<ExitCode, Failure> {
    let mut page = Vec::new();
    render(&mut page).map_err(Failure::other)?;
    write(tidy(&String::from_utf8_lossy(&page)).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn render(page: &mut Vec<u8>) -> io::Result<()> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let man = Man::new(root.clone())
        .title("DAMOOV-PROXY")
        .date(DATE)
        .source(concat!("damoov-proxy ", env!("CARGO_PKG_VERSION")))
        .manual("System Administration");
    man.render_title(page)?;
    name_and_synopsis(&root).to_writer(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    Roff::new().control("SH", ["COMMANDS"]).to_writer(page)?;
    for command in leaves(&root) {
        section(command, page)?;
    }
    page.write_all(SECTIONS.as_bytes())
}

/// The same page as `mandoc -Tlint` wants it: each part comes with the definitions of a whole page, with
/// breaks beside spaces, and with lines of any length.
fn tidy(page: &str) -> String {
    let page = page.replace("\n.br\n\n.br\n", "\n.sp\n");
    let mut tidied = String::new();
    for (number, line) in page.lines().enumerate() {
        let is_definition = line.starts_with(".ie ") || line.starts_with(".el ");
        if is_definition && number > 1 {
            continue;
        }
        match line.starts_with('.') {
            true => tidied.push_str(line),
            false => push_wrapped(&mut tidied, line),
        }
        tidied.push('\n');
    }
    tidied
}

fn push_wrapped(page: &mut String, line: &str) {
    let mut column = 0;
    for (number, word) in line.split(' ').enumerate() {
        // At the beginning of a line it would be a macro.
        let is_macro = word.starts_with(['.', '\'']);
        if number > 0 {
            let is_over = column + word.len() >= WIDTH && !is_macro;
            page.push(if is_over { '\n' } else { ' ' });
            column = if is_over { 0 } else { column + 1 };
        }
        page.push_str(word);
        column += word.len();
    }
}

fn name_and_synopsis(root: &Command) -> Roff {
    let mut roff = Roff::new();
    roff.control("SH", ["NAME"]);
    roff.text([roman(
        "damoov-proxy - reverse proxy in front of the Damoov telematics APIs",
    )]);
    roff.control("SH", ["SYNOPSIS"]);
    for (number, command) in leaves(root).into_iter().enumerate() {
        if number > 0 {
            roff.control("br", []);
        }
        let (name, usage) = (called(command), command.clone().render_usage().to_string());
        // Further lines are those of its subcommands.
        let usage = usage.lines().next().unwrap_or_default();
        let rest = usage.trim_start_matches("Usage: ").trim_start_matches(name);
        roff.text([bold(name), roman(rest)]);
    }
    roff
}

/// Every command that does something, in the order of the help.
fn leaves(command: &Command) -> Vec<&Command> {
    let mut found = Vec::new();
    for command in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        if !command.is_subcommand_required_set() {
            found.push(command);
        }
        found.extend(leaves(command));
    }
    found
}

/// One command: what it does, and its own options.
fn section(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SS", [called(command)]);
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    roff.text([roman(format!("{about}."))]);
    roff.to_writer(page)?;
    let own = command
        .clone()
        .mut_args(|argument| match argument.get_id().as_str() {
            "config" | "help" => argument.hide(true),
            _ => argument,
        });
    let mut options = Vec::new();
    Man::new(own).render_options_section(&mut options)?;
    let options = String::from_utf8_lossy(&options);
    // Its heading is that of a page of its own.
    let options = options.lines().filter(|line| !line.starts_with(".SH "));
    options
        .into_iter()
        .try_for_each(|line| writeln!(page, "{line}"))
}

/// As it is called, with the program's name.
fn called(command: &Command) -> &str {
    command.get_bin_name().unwrap_or_else(|| command.get_name())
}
