//! The path of a request, top to bottom. Words no error, opens no socket.

pub mod head;
