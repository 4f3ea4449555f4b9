//! Any bytes as messages: nothing panics, no neighbour is harmed, memory follows the bytes, and `prost-reflect` agrees on
//! what a message says.

use std::{cell::RefCell, sync::LazyLock};

use arrow::{
    compute::concat_batches,
    datatypes::{DataType, Field, SchemaRef, TimeUnit},
};
use proptest::prelude::*;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

use super::{protobuf::registry, schema};
use crate::{
    SchemaRegistry,
    format::{Decoder, Protobuf, protobuf::ProtobufDecoder},
    registry::testing::FakeRegistry,
};

const TEXT: &str = r#"syntax = "proto3"; import "google/protobuf/wrappers.proto";
message M {
  int32 a = 1; sint64 b = 2; fixed32 c = 3; sfixed64 d = 4; float e = 5; double f = 6; bool g = 7; string h = 8; bytes i = 9;
  optional uint32 j = 10; N n = 11; repeated int64 k = 12; repeated sint32 l = 13 [packed = false]; repeated N m = 14;
  oneof o { int64 p = 15; N q = 16; string r = 17; bool unwanted = 18; }
  E s = 19; repeated string t = 20; google.protobuf.Int64Value u = 21; repeated fixed64 v = 22;
}
message N { uint64 a = 1; optional string b = 2; N n = 3; repeated N m = 4; }
enum E { NONE = 0; ONE = 1; }"#;

fn columns() -> SchemaRef {
    let leaf = vec![Field::new("a", DataType::UInt64, true), Field::new("b", DataType::Utf8, true)];
    let leaf = DataType::Struct(leaf.into());
    let list = |item: &DataType| DataType::new_list(item.clone(), true);
    let n = DataType::Struct(
        vec![
            Field::new("b", DataType::Utf8, true),
            Field::new("a", DataType::UInt64, false),
            Field::new("n", leaf.clone(), true),
            Field::new("m", list(&leaf), true),
        ]
        .into(),
    );
    schema(&[
        ("a", DataType::Int32, false),
        ("b", DataType::Int64, false),
        ("c", DataType::UInt32, false),
        ("d", DataType::Int64, false),
        ("e", DataType::Float32, false),
        ("f", DataType::Float64, false),
        ("g", DataType::Boolean, false),
        ("h", DataType::Utf8, false),
        ("i", DataType::Binary, false),
        ("j", DataType::UInt32, true),
        ("n", n.clone(), true),
        ("k", list(&DataType::Int64), false),
        ("l", list(&DataType::Int32), true),
        ("m", list(&n), true),
        ("p", DataType::Int64, true),
        ("q", n, true),
        ("r", DataType::LargeUtf8, true),
        ("s", DataType::Int32, false),
        ("t", list(&DataType::Utf8View), true),
        ("u", DataType::Int64, true),
        ("v", list(&DataType::UInt64), true),
    ])
}

fn decoder() -> ProtobufDecoder {
    Protobuf::from_proto(TEXT, "M").unwrap().decoder(columns()).unwrap()
}

fn descriptor() -> MessageDescriptor {
    use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
    struct One;
    impl FileResolver for One {
        fn open_file(&self, name: &str) -> Result<File, protox::Error> {
            if name == "m" { File::from_source(name, TEXT) } else { Err(protox::Error::file_not_found(name)) }
        }
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(One);
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    let pool: DescriptorPool = compiler.open_file("m").unwrap().descriptor_pool();
    pool.get_message_by_name("M").unwrap()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(number: u32, wire: u8, value: Vec<u8>) -> Vec<u8> {
    let length = if wire == 2 { varint(value.len() as u64) } else { Vec::new() };
    [varint(u64::from(number << 3 | u32::from(wire))), length, value].concat()
}

/// Fields of M and N, most of them of the right type.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![any::<u64>(), 0..3u64].prop_map(varint);
    let text =
        || prop_oneof![8 => "[a-zé]{0,5}".prop_map(String::into_bytes), 1 => prop::collection::vec(any::<u8>(), 0..4)];
    let scalar = prop_oneof![
        (prop::sample::select(vec![1u32, 2, 7, 10, 12, 13, 15, 18, 19, 99]), number())
            .prop_map(|(n, v)| field(n, 0, v)),
        (prop::sample::select(vec![3u32, 5, 99]), any::<[u8; 4]>()).prop_map(|(n, v)| field(n, 5, v.to_vec())),
        (prop::sample::select(vec![4u32, 6, 22, 99]), any::<[u8; 8]>()).prop_map(|(n, v)| field(n, 1, v.to_vec())),
        (prop::sample::select(vec![8u32, 9, 17, 20, 99]), text()).prop_map(|(n, v)| field(n, 2, v)),
        (12..14u32, prop::collection::vec(number(), 0..4)).prop_map(|(n, v)| field(n, 2, v.concat())),
        number().prop_map(|v| field(21, 2, field(1, 0, v))),
        prop::collection::vec(any::<[u8; 8]>(), 0..3).prop_map(|v| field(22, 2, v.concat())),
    ];
    let leaf = prop_oneof![number().prop_map(|v| field(1, 0, v)), text().prop_map(|v| field(2, 2, v))].boxed();
    let inner = leaf.prop_recursive(3, 12, 4, |inner| {
        (3..5u32, prop::collection::vec(inner, 0..4)).prop_map(|(n, parts)| field(n, 2, parts.concat()))
    });
    let inner = (prop::sample::select(vec![11u32, 14, 16]), prop::collection::vec(inner, 0..4));
    let part = prop_oneof![3 => scalar, 2 => inner.prop_map(|(n, parts)| field(n, 2, parts.concat()))];
    let message = prop::collection::vec(part, 0..8).prop_map(|parts| parts.concat());
    prop_oneof![
        6 => message.clone(),
        2 => (message.clone(), any::<prop::sample::Index>(), any::<u8>()).prop_map(|(mut bytes, at, byte)| {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            bytes
        }),
        1 => (message, any::<prop::sample::Index>()).prop_map(|(mut bytes, at)| {
            bytes.truncate(at.index(bytes.len() + 1));
            bytes
        }),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// What the library takes we take, and it says the same as the library's own writing of it.
    #[test]
    fn prost_agrees(message in messages()) {
        thread_local!(static ORACLE: (MessageDescriptor, Protobuf) = (descriptor(), Protobuf::from_proto(TEXT, "M").unwrap()));
        let (theirs, mut ours) = ORACLE.with(|(descriptor, protobuf)| {
            (DynamicMessage::decode(descriptor.clone(), &message[..]), protobuf.decoder(columns()).unwrap())
        });
        let taken = ours.push(&message);
        // They look also into what has no column and what a later field takes away, so they refuse more.
        if let Ok(theirs) = theirs {
            prop_assert_eq!(&taken, &Ok(()));
            let row = ours.flush().unwrap();
            ours.push(&theirs.encode_to_vec()).unwrap();
            prop_assert_eq!(row, ours.flush().unwrap());
        }
    }

    #[test]
    fn hostile_messages_harm_nobody(messages in prop::collection::vec(messages(), 1..4)) {
        thread_local!(static PROTOBUF: Protobuf = Protobuf::from_proto(TEXT, "M").unwrap());
        let fresh = || PROTOBUF.with(|protobuf| protobuf.decoder(columns()).unwrap());
        let (mut together, mut expected) = (fresh(), Vec::new());
        for message in &messages {
            let mut alone = fresh();
            let taken = alone.push(message);
            prop_assert_eq!(alone.len(), usize::from(taken.is_ok()));
            expected.push(alone.flush().unwrap());
            prop_assert_eq!(together.push(message), taken);
        }
        let expected = concat_batches(&columns(), &expected).unwrap();
        prop_assert_eq!(together.flush().unwrap(), expected);
    }

    #[test]
    fn hostile_frames_harm_nobody(frames in prop::collection::vec(
        (0..3u8, 0..3u32, prop::collection::vec(prop_oneof![0..6u8, any::<u8>()], 0..4), messages()), 1..4)) {
        static REGISTRY: LazyLock<(FakeRegistry, SchemaRegistry)> = LazyLock::new(|| registry(&[(1, TEXT), (2, "no")]));
        // One decoder for all cases, because each compiles the schema for itself.
        thread_local!(static DECODER: RefCell<ProtobufDecoder> = RefCell::new(
            Protobuf::from_registry(&REGISTRY.1).decoder(columns()).unwrap()
        ));
        DECODER.with_borrow_mut(|decoder| {
            decoder.flush().unwrap();
            let mut rows = 0;
            for (magic, id, path, message) in frames {
                let framed = [vec![magic / 2], id.to_be_bytes().to_vec(), path, message].concat();
                rows += usize::from(decoder.push(&framed).is_ok());
                prop_assert!(decoder.failure().is_none());
                prop_assert_eq!(decoder.len(), rows);
                decoder.push(&[0, 0, 0, 0, 1, 0]).unwrap();
                rows += 1;
            }
            prop_assert_eq!(decoder.flush().unwrap().num_rows(), rows);
            Ok(())
        })?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Schemas come from outside too.
    #[test]
    fn hostile_schemas_are_refused(cuts in prop::collection::vec((any::<prop::sample::Index>(), "[{}\\[\\]()<>;=.\"a-z0-9 \\-]{0,6}|message|oneof|map<int32, M>|option|google.protobuf.Any"), 1..4)) {
        let mut text = TEXT.to_string();
        for (at, with) in cuts {
            let at = at.index(text.len());
            let end = (at + with.len() / 2).min(text.len());
            if text.is_char_boundary(at) && text.is_char_boundary(end) {
                text.replace_range(at..end, &with);
            }
        }
        if let Ok(protobuf) = Protobuf::from_proto(&text, "M") && let Ok(mut decoder) = protobuf.decoder(columns()) {
            decoder.push(b"").unwrap();
        }
    }
}

#[test]
fn memory_follows_the_bytes() {
    let mut decoder = decoder();
    // An element of a list of messages takes two bytes; each makes a row of its columns.
    let elements = [0x72, 0x00].repeat(100_000);
    decoder.push(&elements).unwrap();
    let batch = decoder.flush().unwrap();
    assert!(batch.get_array_memory_size() < 100 * elements.len(), "{}", batch.get_array_memory_size());
    // What has no column takes nothing. (There is still room for as many rows as the batch before had.)
    let unwanted = field(99, 2, vec![1; 5 << 20]);
    decoder.flush().unwrap();
    decoder.push(&unwanted).unwrap();
    assert!(decoder.flush().unwrap().get_array_memory_size() < 100_000);
    // Pieces of messages within pieces of messages.
    let mut nested = field(1, 0, varint(7));
    for _ in 0..3 {
        nested = field(3, 2, nested).repeat(50);
    }
    decoder.push(&field(11, 2, nested).repeat(10)).unwrap();
    assert_eq!(decoder.flush().unwrap().num_rows(), 1);
}

#[test]
fn depth_is_bounded_by_the_columns() {
    let mut message = Vec::new();
    for _ in 0..10_000 {
        message = field(3, 2, message);
    }
    let mut decoder = decoder();
    decoder.push(&field(11, 2, message)).unwrap();
    decoder.push(&[0x08, 1]).unwrap();
    assert_eq!(decoder.flush().unwrap().num_rows(), 2);
    let times = schema(&[("a", DataType::Timestamp(TimeUnit::Second, None), true)]);
    let mut seconds = Protobuf::from_proto(TEXT, "M").unwrap().decoder(times).unwrap();
    seconds.push(&[0x08, 1]).unwrap();
    assert_eq!(seconds.flush().unwrap().num_rows(), 1);
}
