//! The wire format of WebSocket (RFC 6455 §5), as far as a session looks at it: heads of frames, and
//! the few frames that the proxy sends itself. Pure.

use std::io::Cursor;

use bytes::{BufMut, BytesMut};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader};

pub(super) use tungstenite::protocol::frame::coding::CloseCode;

/// The longest content of a control frame (RFC 6455 §5.5).
const CONTROL_LIMIT: u64 = 125;

/// What the content of a frame is masked with; nothing, unless a head says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mask([u8; 4]);

impl Mask {
    /// What `content` says, the mask's first byte being for its first one.
    pub(super) fn unmasked(self, content: &[u8]) -> impl Iterator<Item = u8> {
        let mask = self.0.into_iter().cycle();
        content.iter().zip(mask).map(|(byte, mask)| byte ^ mask)
    }

    /// Goes on behind `length` bytes.
    pub(super) fn advance(&mut self, length: usize) {
        self.0.rotate_left(length % 4);
    }
}

/// Whose frames these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// Masked.
    Caller,
    /// Not masked.
    Upstream,
}

/// The head of a frame.
#[derive(Debug)]
pub(super) struct Head {
    header: FrameHeader,
    /// Its own length.
    pub(super) size: usize,
    /// Of the content that follows it.
    pub(super) length: u64,
}

/// What a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first frame of a text message.
    Text,
    /// The first frame of another message.
    Binary,
    /// Another frame of either.
    Continuation,
    /// After which nothing follows.
    Close,
    /// Ping or pong, which may come between those.
    Control,
}

impl Head {
    /// The head at the beginning of `bytes`, once it is whole.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, NotAFrame> {
        let mut cursor = Cursor::new(bytes);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| NotAFrame)?;
        Ok(parsed.map(|(header, length)| Head {
            header,
            size: cursor.position() as usize,
            length,
        }))
    }

    /// Whether `sender` may send it, without any extension negotiated.
    pub(super) fn is_allowed_to(&self, sender: Sender) -> bool {
        let header = &self.header;
        let is_control = matches!(header.opcode, OpCode::Control(_));
        header.mask.is_some() == (sender == Sender::Caller)
            && !(header.rsv1 || header.rsv2 || header.rsv3)
            && !(is_control && (!header.is_final || self.length > CONTROL_LIMIT))
            && i64::try_from(self.length).is_ok()
    }

    /// What the frame is part of.
    pub(super) fn kind(&self) -> Kind {
        match self.header.opcode {
            OpCode::Data(Data::Text) => Kind::Text,
            OpCode::Data(Data::Continue) => Kind::Continuation,
            OpCode::Data(_) => Kind::Binary,
            OpCode::Control(Control::Close) => Kind::Close,
            OpCode::Control(_) => Kind::Control,
        }
    }

    /// Whether its message ends with it.
    pub(super) fn is_final(&self) -> bool {
        self.header.is_final
    }

    /// Appends what `content`, some of the frame's from its beginning on, says.
    pub(super) fn unmask(&self, content: &[u8], text: &mut Vec<u8>) {
        text.extend(self.mask().unmasked(content));
    }

    /// How its content is masked.
    pub(super) fn mask(&self) -> Mask {
        Mask(self.header.mask.unwrap_or_default())
    }
}

/// Appends a whole text message.
pub(super) fn push_text(out: &mut BytesMut, sender: Sender, text: Vec<u8>) {
    push(
        out,
        sender,
        Frame::message(text, OpCode::Data(Data::Text), true),
    );
}

/// Appends a Close.
pub(super) fn push_close(out: &mut BytesMut, sender: Sender, code: CloseCode) {
    let reason = "".into();
    push(out, sender, Frame::close(Some(CloseFrame { code, reason })));
}

fn push(out: &mut BytesMut, sender: Sender, mut frame: Frame) {
    if sender == Sender::Caller {
        let mut mask = [0; 4];
        getrandom::fill(&mut mask).expect("the kernel's random numbers never fail once booted");
        frame.header_mut().mask = Some(mask);
    }
    frame
        .format(&mut out.writer())
        .expect("memory takes every byte");
}

/// What came is no frame of WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotAFrame;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(bytes: &[u8]) -> Head {
        Head::parse(bytes).unwrap().unwrap()
    }

    #[test]
    fn a_head_is_read_once_it_is_whole() {
        for (bytes, size, length) in [
            (&b"\x81\x00"[..], 2, 0),
            (b"\x81\x7d", 2, 125),
            (b"\x81\x7e\x01\x00", 4, 256),
            (b"\x81\x7f\0\0\0\x01\0\0\0\0", 10, 1 << 32),
            (b"\x81\xfe\x01\x00abcd", 8, 256),
        ] {
            let whole = head(&[bytes, b"more"].concat());
            assert_eq!((whole.size, whole.length), (size, length));
            for end in 0..bytes.len() {
                assert!(Head::parse(&bytes[..end]).unwrap().is_none());
            }
        }
        assert_eq!(Head::parse(b"\x83\x00").err(), Some(NotAFrame));
    }

    #[test]
    fn each_end_may_send_what_rfc_6455_allows_it() {
        use Sender::{Caller, Upstream};
        for (bytes, caller, upstream) in [
            (&b"\x81\x00"[..], false, true),
            (b"\x81\x80abcd", true, false),
            (b"\xc1\x80abcd", false, false),
            (b"\xa1\x80abcd", false, false),
            (b"\x91\x80abcd", false, false),
            (b"\x01\x80abcd", true, false),
            (b"\x08\x80abcd", false, false),
            (b"\x89\xfe\0\x7eabcd", false, false),
            (b"\x89\xfdabcd", true, false),
            (b"\x82\x7f\x80\0\0\0\0\0\0\0", false, false),
        ] {
            let head = head(bytes);
            assert_eq!(head.is_allowed_to(Caller), caller, "{bytes:?}");
            assert_eq!(head.is_allowed_to(Upstream), upstream, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_pushed_is_read_again(text: Vec<u8>, masked: bool) {
            let sender = if masked { Sender::Caller } else { Sender::Upstream };
            let mut out = BytesMut::new();
            push_text(&mut out, sender, text.clone());
            let head = head(&out);
            prop_assert!(head.is_allowed_to(sender) && head.is_final());
            prop_assert_eq!(head.kind(), Kind::Text);
            prop_assert_eq!(head.length, text.len() as u64);
            let mut read = Vec::new();
            head.unmask(&out[head.size..], &mut read);
            prop_assert_eq!(read, text);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(0u8.., 0..20)) {
            if let Ok(Some(head)) = Head::parse(&bytes) {
                prop_assert!(head.size <= bytes.len());
                head.is_allowed_to(Sender::Caller);
            }
        }
    }
}
