//! PostgreSQL's protocol as far as a forwarder must know it: where messages begin and end, and which
//! statements they bring.

/// What one side of a connection sends, cut into messages.
pub(super) struct Messages {
    buffer: Vec<u8>,
    framing: Framing,
}

/// How the next bytes are to be read.
#[derive(Clone, Copy, PartialEq)]
enum Framing {
    /// A length and no type: the first message of a client, and each that follows one which asked for
    /// encryption.
    Startup,
    /// A type and a length.
    Typed,
    /// TLS.
    Opaque,
}

/// One message, or bytes that cannot be understood.
#[derive(Debug, PartialEq)]
pub(super) enum Message {
    /// The client asks for encryption. One byte answers it.
    AskForEncryption(Vec<u8>),
    /// The client says who it is. A [`Message::is_ready`] answers it.
    Startup(Vec<u8>),
    Typed(Vec<u8>),
    Opaque(Vec<u8>),
}

/// The codes of SSLRequest and GSSENCRequest.
const ENCRYPTION: [u32; 2] = [80_877_103, 80_877_104];
/// The first byte of a handshake of TLS; of a startup message it would be a length of 300 MB.
const HANDSHAKE: u8 = 0x16;

impl Messages {
    pub(super) fn of_client() -> Messages {
        Messages {
            buffer: Vec::new(),
            framing: Framing::Startup,
        }
    }

    pub(super) fn of_server() -> Messages {
        Messages {
            buffer: Vec::new(),
            framing: Framing::Typed,
        }
    }

    /// Adds what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Takes one byte that is no message: the server's answer to [`Message::AskForEncryption`].
    pub(super) fn take_byte(&mut self) -> Option<u8> {
        (!self.buffer.is_empty()).then(|| self.buffer.remove(0))
    }

    /// Everything that follows is TLS.
    pub(super) fn become_opaque(&mut self) {
        self.framing = Framing::Opaque;
    }

    /// Returns the next message, once it is whole.
    pub(super) fn next(&mut self) -> Option<Message> {
        let first = *self.buffer.first()?;
        if self.framing == Framing::Startup && first == HANDSHAKE {
            self.become_opaque();
        }
        match self.framing {
            Framing::Opaque => Some(Message::Opaque(std::mem::take(&mut self.buffer))),
            Framing::Startup => {
                let message = self.take(0)?;
                let code = message.get(4..8).map(number);
                if code.is_some_and(|code| ENCRYPTION.contains(&code)) {
                    return Some(Message::AskForEncryption(message));
                }
                self.framing = Framing::Typed;
                Some(Message::Startup(message))
            }
            Framing::Typed => self.take(1).map(Message::Typed),
        }
    }

    /// Takes a message whose length stands at `at` and counts from there.
    fn take(&mut self, at: usize) -> Option<Vec<u8>> {
        let length = number(self.buffer.get(at..at + 4)?) as usize;
        (self.buffer.len() >= at + length).then(|| self.buffer.drain(..at + length).collect())
    }
}

impl Message {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Message::AskForEncryption(bytes)
            | Message::Startup(bytes)
            | Message::Typed(bytes)
            | Message::Opaque(bytes) => bytes,
        }
    }

    fn kind(&self) -> Option<u8> {
        match self {
            Message::Typed(bytes) => bytes.first().copied(),
            _ => None,
        }
    }

    /// The SQL that a client sends: of a simple query, or of a statement to prepare.
    pub(super) fn sql(&self) -> Option<String> {
        let texts = self.bytes().get(5..)?;
        let mut texts = texts.split(|byte| *byte == 0);
        let sql = match self.kind()? {
            b'Q' => texts.next(),
            b'P' => texts.nth(1),
            _ => None,
        };
        Some(String::from_utf8_lossy(sql?).into_owned())
    }

    /// Whether a client ends a request with it, which one [`Message::is_ready`] answers.
    pub(super) fn ends_request(&self) -> bool {
        matches!(self, Message::Startup(_)) || matches!(self.kind(), Some(b'Q' | b'S'))
    }

    /// Whether the server ends an answer with it.
    pub(super) fn is_ready(&self) -> bool {
        self.kind() == Some(b'Z')
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .iter()
        .fold(0, |number, byte| number << 8 | u32::from(*byte))
}
