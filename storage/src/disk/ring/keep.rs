//! What an operation keeps alive until the kernel is done with it.

use std::any::Any;
use std::ffi::CString;
use std::fmt;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use crate::disk::AlignedBuf;

/// Memory and file of an operation, given back at its completion.
#[derive(Default)]
pub struct Keep {
    /// The memory it reads or writes.
    pub buffer: Buffer,
    /// Owner of its descriptor. Also needed before the kernel knows the operation: a descriptor that was closed, and
    /// whose number was given to another file, would take its writes there.
    pub owner: Option<Rc<dyn Any>>,
}

/// Kinds of memory; the common ones need no box. Moving the value never moves the bytes.
#[derive(Default)]
pub enum Buffer {
    /// Nothing.
    #[default]
    None,
    /// Direct I/O memory.
    Aligned(AlignedBuf),
    /// Shared bytes, for writing and sending.
    Bytes(Bytes),
    /// Growable bytes, for receiving. Received bytes are beyond its length until the owner sets that.
    BytesMut(BytesMut),
    /// Path of a file that is being opened. The descriptor is closed if nobody waits for it any more.
    Path(CString),
    /// Anything else that keeps its address while it is boxed (message headers, addresses, lists of pieces).
    Boxed(Box<dyn Any>),
}

impl Keep {
    /// A buffer together with the owner of the descriptor.
    pub fn new(buffer: Buffer, owner: Rc<dyn Any>) -> Keep {
        Keep { buffer, owner: Some(owner) }
    }

    /// Only the owner of the descriptor.
    pub fn owner(owner: Rc<dyn Any>) -> Keep {
        Keep { buffer: Buffer::None, owner: Some(owner) }
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.buffer {
            Buffer::None => "nothing",
            Buffer::Aligned(_) => "aligned memory",
            Buffer::Bytes(_) => "bytes",
            Buffer::BytesMut(_) => "growable bytes",
            Buffer::Path(_) => "a path",
            Buffer::Boxed(_) => "a boxed value",
        };
        write!(f, "Keep({kind}{})", if self.owner.is_some() { ", file" } else { "" })
    }
}
