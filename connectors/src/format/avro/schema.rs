//! Avro schemas, parsed: a list of types that point at each other, so that a type which is named twice, or within itself, is there
//! once.

use std::{collections::HashMap, fmt::Write};

use arrow::datatypes::TimeUnit;
use serde_json::{Map, Value};

use crate::format::excerpt;

/// More types than any schema has that a person wrote.
const MOST_TYPES: usize = 100_000;

/// The place of a type in [`Schema::types`].
pub(super) type Id = usize;

/// A schema. All [`Id`]s in it are valid.
#[derive(Clone, Debug)]
pub(super) struct Schema {
    types: Vec<Type>,
    pub(super) root: Id,
}

#[derive(Clone, Debug)]
pub(super) struct Type {
    /// The full name and the aliases of a record, enum or fixed.
    pub(super) name: Option<Name>,
    pub(super) kind: Kind,
    pub(super) logical: Option<Logical>,
}

#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) full: String,
    aliases: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum { symbols: Vec<String>, default: Option<String> },
    Array(Id),
    Map(Id),
    Record(Vec<Field>),
    Union(Vec<Id>),
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) id: Id,
    pub(super) default: Option<Value>,
}

/// What a number or bytes mean. One that does not suit its type is no logical type: so say the rules of Avro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logical {
    Date,
    Time(TimeUnit),
    /// A point in time (`instant`), or what a clock on a wall shows.
    Timestamp {
        unit: TimeUnit,
        instant: bool,
    },
    Decimal {
        precision: u8,
        scale: i8,
    },
    Uuid,
}

impl Schema {
    /// The schema in `text`, which may name types of `references`, each of them those before it.
    pub(super) fn parse<'a>(text: &str, references: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        let mut parser = Parser::default();
        for reference in references {
            parser.text(reference).map_err(|reason| format!("a schema that it refers to: {reason}"))?;
        }
        let root = parser.text(text)?;
        Ok(Self { types: parser.types, root })
    }

    pub(super) fn get(&self, id: Id) -> &Type {
        &self.types[id]
    }

    pub(super) fn kind(&self, id: Id) -> &Kind {
        &self.types[id].kind
    }

    /// The fields of the record at the root.
    pub(super) fn fields(&self) -> Result<&[Field], String> {
        match self.kind(self.root) {
            Kind::Record(fields) => Ok(fields),
            _ => Err(format!("it is {}, not a record, so it has no columns", self.describe(self.root))),
        }
    }

    /// The type, for messages: `long (timestamp-millis)`, `record shop.Order`.
    pub(super) fn describe(&self, id: Id) -> String {
        let found = self.get(id);
        let mut text = match &found.kind {
            Kind::Null => "null".to_string(),
            Kind::Boolean => "boolean".to_string(),
            Kind::Int => "int".to_string(),
            Kind::Long => "long".to_string(),
            Kind::Float => "float".to_string(),
            Kind::Double => "double".to_string(),
            Kind::Bytes => "bytes".to_string(),
            Kind::String => "string".to_string(),
            Kind::Fixed(size) => format!("fixed of {size} bytes"),
            Kind::Enum { .. } => "enum".to_string(),
            Kind::Array(_) => "array".to_string(),
            Kind::Map(_) => "map".to_string(),
            Kind::Record(_) => "record".to_string(),
            Kind::Union(branches) => {
                // Branches are no unions: this ends.
                let names: Vec<String> = branches.iter().take(8).map(|branch| self.describe(*branch)).collect();
                format!("union of {}{}", names.join(", "), if branches.len() > 8 { ", …" } else { "" })
            }
        };
        if let Some(name) = &found.name {
            let _ = write!(text, " {}", excerpt(&name.full));
        }
        if let Some(logical) = found.logical {
            let _ = write!(text, " ({})", logical.describe());
        }
        text
    }
}

impl Name {
    /// The name without its namespace.
    fn short(&self) -> &str {
        self.full.rsplit('.').next().unwrap_or(&self.full)
    }

    /// Whether what a writer calls `writer` is this: the same but for the namespace, or one of the aliases.
    pub(super) fn is(&self, writer: &Self) -> bool {
        self.short() == writer.short() || self.aliases.contains(&writer.full)
    }
}

impl Logical {
    fn describe(self) -> String {
        let unit = |unit| match unit {
            TimeUnit::Second => "seconds",
            TimeUnit::Millisecond => "millis",
            TimeUnit::Microsecond => "micros",
            TimeUnit::Nanosecond => "nanos",
        };
        match self {
            Self::Date => "date".to_string(),
            Self::Time(of) => format!("time-{}", unit(of)),
            Self::Timestamp { unit: of, instant: true } => format!("timestamp-{}", unit(of)),
            Self::Timestamp { unit: of, instant: false } => format!("local-timestamp-{}", unit(of)),
            Self::Decimal { precision, scale } => format!("decimal({precision}, {scale})"),
            Self::Uuid => "uuid".to_string(),
        }
    }

    fn parse(kind: &Kind, object: &Map<String, Value>) -> Option<Self> {
        let (millis, micros, nanos) = (TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond);
        let timestamp = |unit, instant| Some(Self::Timestamp { unit, instant });
        match (kind, object.get("logicalType")?.as_str()?) {
            (Kind::Int, "date") => Some(Self::Date),
            (Kind::Int, "time-millis") => Some(Self::Time(millis)),
            (Kind::Long, "time-micros") => Some(Self::Time(micros)),
            (Kind::Long, "timestamp-millis") => timestamp(millis, true),
            (Kind::Long, "timestamp-micros") => timestamp(micros, true),
            (Kind::Long, "timestamp-nanos") => timestamp(nanos, true),
            (Kind::Long, "local-timestamp-millis") => timestamp(millis, false),
            (Kind::Long, "local-timestamp-micros") => timestamp(micros, false),
            (Kind::Long, "local-timestamp-nanos") => timestamp(nanos, false),
            (Kind::String, "uuid") | (Kind::Fixed(16), "uuid") => Some(Self::Uuid),
            (Kind::Bytes | Kind::Fixed(_), "decimal") => {
                let precision = u8::try_from(object.get("precision")?.as_u64()?).ok()?;
                let scale = i8::try_from(object.get("scale").map_or(Some(0), Value::as_u64)?).ok()?;
                (precision > 0 && i16::from(scale) <= i16::from(precision))
                    .then_some(Self::Decimal { precision, scale })
            }
            _ => None,
        }
    }
}

#[derive(Default)]
struct Parser {
    types: Vec<Type>,
    named: HashMap<String, Id>,
}

impl Parser {
    fn text(&mut self, text: &str) -> Result<Id, String> {
        // A schema may be a bare name, which registries give without quotes as well.
        match serde_json::from_str(text) {
            Ok(value) => self.parse(&value, ""),
            Err(_) if primitive(text.trim()).is_some() => self.name(text.trim(), ""),
            Err(error) => Err(format!("not JSON: {error}")),
        }
    }

    fn add(&mut self, name: Option<Name>, kind: Kind, logical: Option<Logical>) -> Result<Id, String> {
        if self.types.len() >= MOST_TYPES {
            return Err(format!("more than {MOST_TYPES} types"));
        }
        self.types.push(Type { name, kind, logical });
        Ok(self.types.len() - 1)
    }

    fn parse(&mut self, value: &Value, namespace: &str) -> Result<Id, String> {
        match value {
            Value::String(name) => self.name(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            other => Err(format!("{} is not a type", excerpt(&other.to_string()))),
        }
    }

    fn name(&mut self, name: &str, namespace: &str) -> Result<Id, String> {
        if let Some(kind) = primitive(name) {
            return self.add(None, kind, None);
        }
        let found = self.named.get(&full(name, namespace)).or_else(|| self.named.get(name));
        found.copied().ok_or_else(|| format!("the type {:?} is not defined before it is used", excerpt(name)))
    }

    fn union(&mut self, branches: &[Value], namespace: &str) -> Result<Id, String> {
        let ids: Vec<Id> = branches.iter().map(|branch| self.parse(branch, namespace)).collect::<Result<_, _>>()?;
        if ids.iter().any(|id| matches!(self.types[*id].kind, Kind::Union(_))) {
            return Err("a union directly within a union".to_string());
        }
        self.add(None, Kind::Union(ids), None)
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<Id, String> {
        let found = object.get("type").ok_or("a type without \"type\"")?;
        let Value::String(kind) = found else { return self.parse(found, namespace) };
        let part = |name: &str| object.get(name).ok_or_else(|| format!("{kind} without {name:?}"));
        match kind.as_str() {
            "array" => {
                let items = self.parse(part("items")?, namespace)?;
                self.add(None, Kind::Array(items), None)
            }
            "map" => {
                let values = self.parse(part("values")?, namespace)?;
                self.add(None, Kind::Map(values), None)
            }
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let default = object.get("default").and_then(Value::as_str).map(str::to_string);
                self.define(object, namespace, Kind::Enum { symbols: texts(part("symbols")?)?, default })
            }
            "fixed" => {
                let size = part("size")?.as_u64().and_then(|size| i32::try_from(size).ok());
                let size = size.and_then(|size| usize::try_from(size).ok()).ok_or("fixed with a bad size")?;
                self.define(object, namespace, Kind::Fixed(size))
            }
            name => {
                let Some(kind) = primitive(name) else { return self.name(name, namespace) };
                let logical = Logical::parse(&kind, object);
                self.add(None, kind, logical)
            }
        }
    }

    /// A type with a name, from now on known by it.
    fn define(&mut self, object: &Map<String, Value>, namespace: &str, kind: Kind) -> Result<Id, String> {
        let name = object.get("name").and_then(Value::as_str).ok_or("a named type without \"name\"")?;
        let namespace = object.get("namespace").and_then(Value::as_str).unwrap_or(namespace);
        let full_name = full(name, namespace);
        let within = full_name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let aliases = texts(object.get("aliases").unwrap_or(&Value::Array(Vec::new())))?;
        let aliases = aliases.iter().map(|alias| full(alias, within)).collect();
        let logical = Logical::parse(&kind, object);
        let id = self.add(Some(Name { full: full_name.clone(), aliases }), kind, logical)?;
        if self.named.insert(full_name.clone(), id).is_some() {
            return Err(format!("the type {:?} is defined twice", excerpt(&full_name)));
        }
        Ok(id)
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: &str) -> Result<Id, String> {
        // Its name is known within it.
        let id = self.define(object, namespace, Kind::Record(Vec::new()))?;
        let full_name = self.types[id].name.as_ref().map(|name| name.full.clone()).unwrap_or_default();
        let namespace = full_name.rsplit_once('.').map_or("", |(namespace, _)| namespace);
        let list = object.get("fields").and_then(Value::as_array).ok_or("a record without \"fields\"")?;
        let mut fields: Vec<Field> = Vec::with_capacity(list.len());
        let mut names = std::collections::HashSet::new();
        for field in list {
            let name = field.get("name").and_then(Value::as_str).ok_or("a field without \"name\"")?;
            let within = |reason| format!("field {:?}: {reason}", excerpt(name));
            if !names.insert(name) {
                return Err(within("it is there twice".to_string()));
            }
            let found = field.get("type").ok_or_else(|| within("it has no \"type\"".to_string()))?;
            let id = self.parse(found, namespace).map_err(within)?;
            let aliases = field.get("aliases").map(texts).transpose().map_err(within)?.unwrap_or_default();
            fields.push(Field { name: name.to_string(), aliases, id, default: field.get("default").cloned() });
        }
        self.types[id].kind = Kind::Record(fields);
        Ok(id)
    }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn full(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_string() } else { format!("{namespace}.{name}") }
}

fn texts(value: &Value) -> Result<Vec<String>, String> {
    let list = value.as_array().and_then(|list| list.iter().map(|text| text.as_str().map(str::to_string)).collect());
    list.ok_or_else(|| format!("{} is not a list of texts", excerpt(&value.to_string())))
}
