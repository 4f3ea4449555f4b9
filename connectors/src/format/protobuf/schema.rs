//! .proto text into a descriptor, and the numbers that say which message of it is meant.
//!
//! A text that a registry hands out is somebody's data: its length, the number of its imports and the depth of its
//! brackets are limited before it is compiled.

use prost_reflect::{FileDescriptor, MessageDescriptor};
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};

use super::builtin;
use crate::registry::RegisteredSchema;

/// The text of a .proto file, with the files that it imports: for each its name as in the `import`, and its text. Those that
/// clients have built in need not be among them.
#[derive(Clone, Debug)]
pub(super) struct ProtoText {
    pub(super) text: String,
    pub(super) references: Vec<(String, String)>,
}

impl From<&RegisteredSchema> for ProtoText {
    fn from(schema: &RegisteredSchema) -> Self {
        let references = schema.references.iter().map(|file| (file.name.clone(), file.text.clone())).collect();
        Self { text: schema.text.clone(), references }
    }
}

/// The longest schema that is compiled, with its imports.
const MAX_TEXT_BYTES: usize = 1 << 20;
/// The most files that a schema may import.
const MAX_REFERENCES: usize = 100;
/// How deep brackets may be nested. The compiler goes one call deeper for each in the value of an option.
const MAX_DEPTH: usize = 100;

/// What the file is called that nobody imports.
const ROOT: &str = "windrow/this.proto";

/// Compiles a schema. The error says why it is none.
pub(super) fn compile(proto: &ProtoText) -> Result<FileDescriptor, String> {
    let texts = || std::iter::once(&proto.text).chain(proto.references.iter().map(|(_, text)| text));
    let bytes: usize = texts().map(String::len).sum();
    if bytes > MAX_TEXT_BYTES {
        return Err(format!("it has {bytes} bytes with its imports; the most are {MAX_TEXT_BYTES}"));
    }
    if proto.references.len() > MAX_REFERENCES {
        return Err(format!("it has {} imports; the most are {MAX_REFERENCES}", proto.references.len()));
    }
    if texts().any(|text| depth(text) > MAX_DEPTH) {
        return Err(format!("its brackets are nested deeper than {MAX_DEPTH}"));
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(Texts(proto.clone()));
    resolver.add(GoogleFileResolver::new());
    resolver.add(BuiltIn);
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.open_file(ROOT).map_err(|error| reason(&error))?;
    let pool = compiler.descriptor_pool();
    pool.get_file_by_name(ROOT).ok_or_else(|| "the compiler lost it".to_string())
}

/// What the compiler says, with line and column, on one line.
fn reason(error: &protox::Error) -> String {
    const SHOWN: usize = 300;
    let text: String = format!("{error:?}").chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.replace(&format!("{ROOT}:"), "line ");
    if !error.is_file_not_found() {
        return text;
    }
    format!(
        "{text}: register that file as a reference of the schema, or, without a registry, use from_descriptor_set with all files in \
         the set"
    )
}

/// The deepest nesting of brackets, wherever they stand.
fn depth(text: &str) -> usize {
    let (mut open, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'{' | b'[' | b'<' | b'(' => open += 1,
            b'}' | b']' | b'>' | b')' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// The files of a schema, without a file system.
struct Texts(ProtoText);

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let reference = || self.0.references.iter().find(|(reference, _)| reference == name).map(|(_, text)| text);
        let text = if name == ROOT { Some(&self.0.text) } else { reference() };
        match text {
            Some(text) => File::from_source(name, text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// The files that clients have built in.
struct BuiltIn;

impl FileResolver for BuiltIn {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match builtin::text(name) {
            Some(text) => File::from_source(name, &text),
            None => Err(protox::Error::file_not_found(name)),
        }
    }
}

/// Reads which message of its schema is meant, from what follows the schema id. Returns the path and its length.
pub(super) fn read_indexes(bytes: &[u8]) -> Result<(Vec<usize>, usize), String> {
    /// Deeper than the compiler nests messages.
    const MOST: i64 = 32;
    let broken = |_| "the numbers behind its schema id, which say what message it is, are broken".to_string();
    let mut rest = bytes;
    let mut next = || {
        let raw = prost::encoding::decode_varint(&mut rest).map_err(broken)?;
        let (half, odd) = ((raw >> 1) as i64, (raw & 1) as i64);
        Ok::<i64, String>(half ^ -odd)
    };
    let count = next()?;
    if !(0..=MOST).contains(&count) {
        return Err(format!("its schema id is followed by the count {count} of numbers that say what message it is"));
    }
    let mut path = Vec::new();
    for _ in 0..count {
        let index = next()?;
        path.push(usize::try_from(index).map_err(|_| format!("it is said to be message {index} of its schema"))?);
    }
    if path.is_empty() {
        path.push(0);
    }
    Ok((path, bytes.len() - rest.len()))
}

/// Writes which message of its schema is meant. The first one has a short form.
pub(super) fn write_indexes(path: &[usize], out: &mut Vec<u8>) {
    if path == [0] {
        out.push(0);
        return;
    }
    prost::encoding::encode_varint((path.len() as u64) << 1, out);
    for index in path {
        prost::encoding::encode_varint((*index as u64) << 1, out);
    }
}

/// The message that a path means: its place in the file, then in the message there, and so on. The messages that the
/// compiler makes of maps do not count, because they do not stand in the text.
pub(super) fn message_at(file: &FileDescriptor, path: &[usize]) -> Option<MessageDescriptor> {
    let (first, inner) = path.split_first()?;
    let outer = file.messages().nth(*first)?;
    inner.iter().try_fold(outer, |message, index| written(&message).nth(*index))
}

/// The path of a message, for [`message_at`].
pub(super) fn path_of(message: &MessageDescriptor) -> Vec<usize> {
    let mut path = Vec::new();
    let mut inner = message.clone();
    while let Some(outer) = inner.parent_message() {
        path.extend(written(&outer).position(|child| child == inner));
        inner = outer;
    }
    path.extend(inner.parent_file().messages().position(|message| message == inner));
    path.reverse();
    path
}

fn written(message: &MessageDescriptor) -> impl Iterator<Item = MessageDescriptor> + '_ {
    message.child_messages().filter(|message| !message.is_map_entry())
}
