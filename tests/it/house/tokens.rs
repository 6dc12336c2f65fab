//! The words of a source file: without comments, without literals, and without what `#[cfg(test)]`
//! keeps out of the program.

/// An identifier, a number, or a sign: `::`, `->`, `=>`, or one character.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token<'s> {
    pub text: &'s str,
    /// Counted from 1.
    pub line: usize,
}

/// The tokens of the program.
pub fn tokens(source: &str) -> Vec<Token<'_>> {
    without_tests(&all_tokens(source))
}

fn all_tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let (length, is_token) = match skipped(rest) {
            Some(length) => (length, false),
            None => (sign_or_word(rest), !first.is_whitespace()),
        };
        let (text, behind) = rest.split_at(length);
        if is_token {
            let text = text.trim_start_matches("r#");
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = behind;
    }
    tokens
}

/// The length of the comment, literal or lifetime that `text` begins with.
fn skipped(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment(text));
    }
    ["br", "cr", "r"]
        .iter()
        .find_map(|prefix| Some(prefix.len() + raw_string(text.strip_prefix(prefix)?)?))
        .or_else(|| {
            let prefix = usize::from(text.starts_with(['b', 'c']));
            Some(prefix + quoted_literal(&text[prefix..])?)
        })
}

fn block_comment(text: &str) -> usize {
    let (mut at, mut depth) = (0, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            (at, depth) = (at + 2, depth + 1);
        } else if rest.starts_with("*/") {
            (at, depth) = (at + 2, depth - 1);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// `None` if `#` begins something else: an attribute, or a raw identifier.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let content = text[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", &text[..hashes]);
    let length = content
        .find(&end)
        .map_or(content.len(), |at| at + end.len());
    Some(hashes + 1 + length)
}

/// A string, a character, or a lifetime.
fn quoted_literal(text: &str) -> Option<usize> {
    let mut characters = text.chars();
    let first = characters.next()?;
    let (second, third) = (characters.next(), characters.next());
    match first {
        '"' => Some(quoted(text, '"')),
        '\'' if second == Some('\\') || third == Some('\'') => Some(quoted(text, '\'')),
        '\'' => Some(1 + word(&text[1..])),
        _ => None,
    }
}

/// To the closing quote, which no backslash stands before.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn sign_or_word(text: &str) -> usize {
    if let Some(identifier) = text.strip_prefix("r#") {
        return 2 + word(identifier);
    }
    match ["::", "->", "=>"]
        .iter()
        .find(|sign| text.starts_with(**sign))
    {
        Some(sign) => sign.len(),
        None => word(text).max(text.chars().next().map_or(0, char::len_utf8)),
    }
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// Leaves out each item, field, arm and statement that is compiled for tests alone.
fn without_tests<'s>(tokens: &[Token<'s>]) -> Vec<Token<'s>> {
    let mut kept = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match attribute(tokens, at) {
            Some(attribute) if attribute.of_tests && attribute.of_file => return Vec::new(),
            Some(attribute) if attribute.of_tests => at = end_of_item(tokens, attribute.end),
            _ => {
                kept.push(tokens[at]);
                at += 1;
            }
        }
    }
    kept
}

struct Attribute {
    end: usize,
    /// `#![…]`.
    of_file: bool,
    /// `cfg(test)`, and what contains `test` without `not`.
    of_tests: bool,
}

fn attribute(tokens: &[Token<'_>], at: usize) -> Option<Attribute> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let of_file = text(at + 1) == "!";
    let open = at + 1 + usize::from(of_file);
    if text(at) != "#" || text(open) != "[" {
        return None;
    }
    let end = end_of_group(tokens, open);
    let mut of_tests = false;
    let mut inside = open + 3;
    while text(open + 1) == "cfg" && inside < end {
        of_tests |= text(inside) == "test";
        inside = match text(inside) {
            "not" => end_of_group(tokens, inside + 1),
            _ => inside + 1,
        };
    }
    Some(Attribute {
        end,
        of_file,
        of_tests,
    })
}

/// Behind the bracket that closes the one at `open`.
fn end_of_group(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Behind what an attribute that ends before `start` belongs to.
fn end_of_item(tokens: &[Token<'_>], start: usize) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut at = start;
    while let Some(attribute) = attribute(tokens, at) {
        at = attribute.end;
    }
    if text(at) == "pub" {
        at += 1;
        if text(at) == "(" {
            at = end_of_group(tokens, at);
        }
    }
    let ends = match text(at) {
        "use" | "let" | "static" | "type" => Ends::Semicolon,
        "const" if text(at + 1) != "fn" => Ends::Semicolon,
        "fn" | "mod" | "struct" | "enum" | "union" | "trait" | "impl" | "const" | "async"
        | "unsafe" | "extern" => Ends::SemicolonOrBlock,
        _ if text(at + 1) == "!" => Ends::SemicolonOrBlock,
        _ => Ends::Comma,
    };
    ends.find(tokens, at)
}

/// What comes last.
#[derive(PartialEq)]
enum Ends {
    Semicolon,
    SemicolonOrBlock,
    /// Of a field, a variant or an arm; the last one may lack it.
    Comma,
}

impl Ends {
    fn find(self, tokens: &[Token<'_>], start: usize) -> usize {
        let mut at = start;
        let mut angles = 0_usize;
        while let Some(token) = tokens.get(at) {
            match token.text {
                ")" | "]" | "}" => return at,
                "(" | "[" => at = end_of_group(tokens, at) - 1,
                "{" => {
                    let arm = tokens[at - 1].text == "=>";
                    at = end_of_group(tokens, at) - 1;
                    let comma = tokens.get(at + 1).is_some_and(|next| next.text == ",");
                    if self == Ends::SemicolonOrBlock || arm && !comma {
                        return at + 1;
                    }
                }
                ";" if self != Ends::Comma => return at + 1,
                "," if self == Ends::Comma && angles == 0 => return at + 1,
                "<" => angles += 1,
                ">" => angles = angles.saturating_sub(1),
                _ => {}
            }
            at += 1;
        }
        tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn words(source: &str) -> String {
        let words: Vec<_> = tokens(source).iter().map(|token| token.text).collect();
        words.join(" ")
    }

    #[test]
    fn comments_literals_and_lifetimes_are_no_tokens() {
        for (source, expected) in [
            ("a // crate::x\nb", "a b"),
            ("a /* crate /* :: */ x */ b", "a b"),
            ("//! crate::x\n/// crate::y\na", "a"),
            (r#"a "crate::x \" crate::y" b"#, "a b"),
            ("a r\"\\\" b", "a b"),
            ("a r##\"crate \"# :: \"## b", "a b"),
            ("a br#\"\"\"# b\"x\" c\"y\" b", "a b"),
            (r"a '\'' '\u{7f}' '{' '\\' b'x' b", "a b"),
            ("a: &'static str, 'outer: loop", "a : & str , : loop"),
            ("r#fn r#\"x\"# bridge", "fn bridge"),
            ("crate::a->b=>c", "crate :: a -> b => c"),
            ("ä 'ä' \"ä\" b", "ä b"),
        ] {
            assert_eq!(words(source), expected, "{source}");
        }
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let lines: Vec<_> = tokens("a\n/*\n*/ b \"\n\n\" c\nd")
            .iter()
            .map(|token| (token.text, token.line))
            .collect();
        assert_eq!(lines, [("a", 1), ("b", 3), ("c", 5), ("d", 6)]);
    }

    #[test]
    fn what_tests_alone_compile_is_left_out() {
        for (source, expected) in [
            ("#[cfg(test)] mod tests; a", "a"),
            ("#[cfg(test)]\nmod tests { fn x() { } } a", "a"),
            ("#[cfg(test)] use a::{b, c}; d", "d"),
            ("#[cfg(test)] pub(crate) use a::{b, c}; d", "d"),
            (
                "#[cfg(test)] #[derive(Debug)] struct A<B, C> { d: E } f",
                "f",
            ),
            ("#[cfg(test)] struct A(B, C); d", "d"),
            (
                "#[cfg(test)] impl<A, B> C<A> for D where A: E, B: F { } g",
                "g",
            ),
            ("#[cfg(test)] const A: B = C { d, e }; f", "f"),
            ("#[cfg(test)] pub const fn a<B, C>() { d } e", "e"),
            ("#[cfg(test)] pub async fn a(b: C) -> D { e } f", "f"),
            ("#[cfg(test)] thread_local! { a } b", "b"),
            (
                "{ a: B, #[cfg(test)] c: D<E, F>, g: H }",
                "{ a : B , g : H }",
            ),
            ("{ a: B, #[cfg(test)] c: D }", "{ a : B , }"),
            ("{ #[cfg(test)] A => { b } C => d, }", "{ C => d , }"),
            ("{ #[cfg(test)] A => { b }, C => d, }", "{ C => d , }"),
            (
                "{ #[cfg(test)] A { b } => c(d, e), F => g, }",
                "{ F => g , }",
            ),
            ("{ #[cfg(test)] let a = { b; c }; d }", "{ d }"),
            ("#[cfg(all(test, unix))] fn a() { } b", "b"),
            ("#![cfg(test)] a", ""),
        ] {
            assert_eq!(words(source), expected, "{source}");
        }
    }

    #[test]
    fn what_is_compiled_without_tests_stays() {
        for source in [
            "#[cfg(not(test))] fn a() { }",
            "#[cfg(feature = x)] fn a() { }",
            "#[test] fn a() { }",
            "#[cfg(unix)] mod tests ;",
        ] {
            let squeezed = |text: &str| text.replace(' ', "");
            assert_eq!(squeezed(&words(source)), squeezed(source));
        }
    }
}
