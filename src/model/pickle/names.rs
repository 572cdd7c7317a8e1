//! What a name that a pickle loads is known to do: a short list of what checkpoints need, a long one of what runs
//! commands, code or requests, and *unknown* for the rest of the world.
//!
//! Only the first list makes anything safe, and it is compared whole: `pathlib` and `os.system` are two names that no
//! list of modules would join, and Python does.

use crate::model::verdict::Grade;
use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

/// What the object is that a name, or calling it, gives: which opcodes it may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Items may be set.
    Map,
    /// Items may be appended.
    List,
    /// joblib's wrapper, behind which an array stands amid the pickle.
    Wrapped,
    /// It may be what was given to the call, which may be a class.
    Given,
    /// NumPy's class of types.
    DtypeClass,
    /// One of those types.
    Dtype {
        /// It may hold objects.
        objects: bool,
    },
    /// One of its classes of arrays.
    ArrayClass,
    /// What it writes to make an array of one of these.
    Reconstruct,
    /// `getattr`, which is judged by what it is given.
    Attribute,
    /// A class of storages of PyTorch, of which a number has so many bytes.
    Storage(u8),
    /// Anything else.
    Other,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Safe, unknown or unsafe.
    pub grade: Grade,
    /// Of what it makes.
    pub shape: Shape,
    /// Why it is not safe.
    pub why: &'static str,
}

/// Harmless: module, and names in it.
const HARMLESS: &[(&str, &str)] = &[
    ("builtins", PLAIN),
    ("__builtin__", PLAIN),
    ("collections", "OrderedDict defaultdict Counter deque"),
    ("copyreg", "_reconstructor __newobj__ __newobj_ex__"),
    ("copy_reg", "_reconstructor __newobj__ __newobj_ex__"),
    ("_codecs", "encode"),
    ("datetime", "datetime date time timedelta timezone"),
    ("decimal", "Decimal"),
    ("fractions", "Fraction"),
    ("uuid", "UUID"),
    ("pathlib", PATHS),
    ("pathlib._local", PATHS),
    ("argparse", "Namespace"),
    ("types", "SimpleNamespace"),
    ("numpy", NUMPY),
    ("numpy.core.multiarray", "_reconstruct scalar"),
    ("numpy._core.multiarray", "_reconstruct scalar"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.ma.core", "_mareconstruct MaskedArray"),
    ("numpy.ma", "_mareconstruct MaskedArray"),
    ("numpy.matrixlib.defmatrix", "matrix"),
    ("numpy.random", "__RandomState_ctor"),
    ("numpy.random._pickle", "__randomstate_ctor __generator_ctor __bit_generator_ctor"),
    ("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence SeedSequence"),
    ("numpy.random._mt19937", "MT19937"),
    ("numpy.random._pcg64", "PCG64 PCG64DXSM"),
    ("numpy.random._philox", "Philox"),
    ("numpy.random._sfc64", "SFC64"),
    ("torch", TORCH),
    ("torch.cuda", STORAGES),
    ("torch.storage", "TypedStorage UntypedStorage _TypedStorage _UntypedStorage"),
    ("torch._utils", TORCH_REBUILD),
    ("torch._tensor", "_rebuild_from_type_v2"),
    ("torch.nn.parameter", "Parameter Buffer UninitializedParameter UninitializedBuffer"),
    ("torch.serialization", "_get_layout"),
    ("torch.torch_version", "TorchVersion"),
];

const PLAIN: &str = "set frozenset list dict tuple int long float complex bool str unicode bytes bytearray slice range xrange \
    object NoneType";
const PATHS: &str = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath";
const NUMPY: &str = "ndarray dtype matrix bool_ bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 intc uintc longlong \
    ulonglong float16 float32 float64 longdouble complex64 complex128 clongdouble str_ bytes_ void datetime64 \
    timedelta64";
const STORAGES: &str = "FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage ShortStorage CharStorage \
    ByteStorage BoolStorage ComplexFloatStorage ComplexDoubleStorage QUInt8Storage QInt8Storage QInt32Storage \
    QUInt4x2Storage QUInt2x4Storage";
const TORCH: &str = "Tensor Size device FloatStorage DoubleStorage HalfStorage BFloat16Storage LongStorage IntStorage \
    ShortStorage CharStorage ByteStorage BoolStorage ComplexFloatStorage ComplexDoubleStorage QUInt8Storage \
    QInt8Storage QInt32Storage QUInt4x2Storage QUInt2x4Storage UntypedStorage TypedStorage FloatTensor DoubleTensor \
    HalfTensor BFloat16Tensor LongTensor IntTensor ShortTensor CharTensor ByteTensor BoolTensor float32 float float64 \
    double float16 half bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu \
    float4_e2m1fn_x2 int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7 bits8 bits16 bits1x8 \
    bits2x4 bits4x2 uint8 uint16 uint32 uint64 int8 int16 short int32 int int64 long bool complex32 chalf complex64 \
    cfloat complex128 cdouble quint8 qint8 qint32 quint4x2 quint2x4 per_tensor_affine per_channel_affine \
    per_channel_affine_float_qparams per_tensor_symmetric per_channel_symmetric strided sparse_coo sparse_csr \
    sparse_csc sparse_bsr sparse_bsc";
const TORCH_REBUILD: &str = "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter _rebuild_parameter_with_state \
    _rebuild_sparse_tensor _rebuild_sparse_csr_tensor _rebuild_qtensor _rebuild_device_tensor_from_numpy \
    _rebuild_device_tensor_from_cpu_tensor _rebuild_xla_tensor _rebuild_meta_tensor_no_storage \
    _rebuild_nested_tensor _rebuild_wrapper_subclass";

/// Modules that no checkpoint needs, with all that lies below them.
const DANGEROUS: &[(&str, &str)] = &[
    (
        COMMANDS,
        "os posix nt subprocess _posixsubprocess _winapi pty commands popen2 _osx_support _aix_support distutils \
         setuptools pkg_resources pip ensurepip venv virtualenv multiprocessing _multiprocessing concurrent \
         webbrowser antigravity idlelib tkinter pexpect sh fabric paramiko invoke plumbum signal platform \
         numpy.distutils numpy.f2py torch.utils.cpp_extension torch.utils.collect_env torch.utils.bottleneck \
         torch.distributed.run torch.distributed.launch torch.distributed.launcher torch.distributed.elastic \
         torch.multiprocessing getpass pwd resource crypt",
    ),
    (
        CODE,
        "sys runpy code codeop cProfile profile pdb bdb trace timeit doctest unittest test.support _testcapi \
         _testinternalcapi ctypes _ctypes cffi _cffi_backend importlib _frozen_importlib \
         _frozen_importlib_external imp _imp pkgutil zipimport zipapp marshal pydoc pyclbr lib2to3 ast dis \
         inspect gc faulthandler site sysconfig compileall py_compile modulefinder rlcompleter readline cgitb \
         pickletools dill cloudpickle bytecode jinja2 mako IPython ipykernel torch.jit.unsupported_tensor_ops \
         torch.jit._script torch.jit.frontend torch.jit.annotations torch.jit._serialization torch.fx \
         torch._dynamo torch._inductor torch.package torch.hub torch.onnx torch.ops torch._ops torch.library \
         torch._export torch.export torch.utils._config_module torch.utils.data.datapipes numpy.testing \
         numpy.ctypeslib sympy.parsing sympy.utilities pandas.core.computation tensorflow.python.ops keras.src.layers.core.lambda_layer \
         _xxsubinterpreters _interpreters threading _thread asyncio sched atexit weakref.finalize executing \
         joblib.externals.cloudpickle",
    ),
    (
        AGAIN,
        "pickle _pickle cPickle shelve torch.serialization torch.distributed.rpc mlflow yaml ruamel jsonpickle skops",
    ),
    (
        FILES,
        "_pyio shutil tempfile fileinput glob linecache zipfile tarfile gzip bz2 lzma mmap fcntl sqlite3 \
         _sqlite3 dbm _dbm _gdbm logging.config logging.handlers posixpath ntpath nturl2path genericpath filecmp mailbox netrc \
         winreg _winreg msvcrt syslog torch.utils.tensorboard cgi plistlib",
    ),
    (
        NETWORK,
        "socket _socket socketserver ssl _ssl http httplib urllib urllib2 urllib3 requests httpx aiohttp ftplib \
         smtplib smtpd imaplib poplib nntplib telnetlib xmlrpc xmlrpclib wsgiref select selectors asyncore \
         asynchat",
    ),
];

/// Single names of modules that are otherwise only unknown.
const DANGEROUS_NAMES: &[(&str, &str, &str)] = &[
    (CODE, "builtins", BUILT_IN),
    (CODE, "__builtin__", BUILT_IN),
    (CODE, "__builtins__", BUILT_IN),
    (CODE, "operator", "attrgetter methodcaller call"),
    (CODE, "_operator", "attrgetter methodcaller call"),
    (
        CODE,
        "types",
        "CodeType FunctionType LambdaType MethodType ModuleType BuiltinFunctionType new_class prepare_class \
        resolve_bases DynamicClassAttribute coroutine",
    ),
    (CODE, "functools", "reduce partialmethod singledispatch cached_property"),
    (CODE, "_functools", "reduce"),
    (CODE, "copyreg", "add_extension pickle constructor clear_extension_cache remove_extension"),
    (CODE, "torch", "compile classes import_ir_module vmap"),
    (AGAIN, "torch", "load save"),
    (AGAIN, "numpy", "load fromfile memmap loadtxt genfromtxt save savez savetxt"),
    (AGAIN, "numpy.lib.npyio", "load NpzFile loadtxt genfromtxt fromregex"),
    (AGAIN, "numpy.lib._npyio_impl", "load NpzFile loadtxt genfromtxt fromregex"),
    (AGAIN, "numpy.lib.format", "read_array open_memmap"),
    (AGAIN, "joblib", "load Parallel Memory delayed"),
    (AGAIN, "joblib.numpy_pickle", "load load_temporary_memmap NumpyUnpickler _unpickle"),
    (AGAIN, "pandas", "read_pickle read_csv read_hdf read_sql read_json eval read_html read_table"),
    (AGAIN, "pandas.io.pickle", "read_pickle to_pickle"),
    (AGAIN, "pandas.compat.pickle_compat", "load loads Unpickler"),
    (FILES, "io", OPENING),
    (FILES, "_io", OPENING),
    (FILES, "logging", "FileHandler basicConfig fileConfig StreamHandler"),
    (FILES, "codecs", "open EncodedFile StreamReader StreamWriter"),
    (FILES, "pathlib", "os io sys Path.write_text Path.write_bytes Path.unlink"),
    (COMMANDS, "uuid", "_get_command_stdout _popen os sys _find_mac_near_keyword"),
];

const OPENING: &str = "open open_code FileIO BufferedReader BufferedWriter BufferedRandom TextIOWrapper text_encoding";
const BUILT_IN: &str = "eval exec execfile compile open file __import__ getattr setattr delattr vars globals locals input raw_input \
    breakpoint apply reload exit quit help type super classmethod staticmethod property map filter reduce \
    __build_class__ memoryview __loader__ __spec__ license credits copyright";

/// Parts of a dotted name by which one gets from anything to everything.
const WAYS_OUT: &str = "__globals__ __builtins__ __class__ __bases__ __base__ __mro__ __subclasses__ __dict__ __getattribute__ \
    __getattr__ __init__ __code__ __func__ __self__ __loader__ __spec__ __import__ __call__ __reduce__ \
    __reduce_ex__ __setattr__ func_globals gi_frame f_globals";

const COMMANDS: &str = "it runs commands, or leads to what does";
const CODE: &str = "it runs code, or leads to what does";
const AGAIN: &str = "it reads further pickles, which are not seen here";
const FILES: &str = "it reads or writes files";
const NETWORK: &str = "it talks to a network";
const UNKNOWN: &str = "it is not among what is known to be harmless";

/// Modules that others import and so carry with them.
const BORROWED: &str = "os sys subprocess builtins importlib shutil socket posix ctypes runpy pickle marshal tempfile \
    multiprocessing";

/// The lists, to be looked up: a flood of names costs no more than its bytes.
struct Lists {
    harmless: HashSet<(&'static str, &'static str)>,
    modules: HashMap<&'static str, &'static str>,
    names: HashMap<(&'static str, &'static str), &'static str>,
    ways_out: HashSet<&'static str>,
    borrowed: HashSet<&'static str>,
}

static LISTS: LazyLock<Lists> = LazyLock::new(|| {
    let words = str::split_ascii_whitespace;
    Lists {
        harmless: HARMLESS.iter().flat_map(|(module, names)| words(names).map(move |name| (*module, name))).collect(),
        modules: DANGEROUS.iter().flat_map(|(why, modules)| words(modules).map(move |module| (module, *why))).collect(),
        names: DANGEROUS_NAMES
            .iter()
            .flat_map(|(why, module, names)| words(names).map(move |name| ((*module, name), *why)))
            .collect(),
        ways_out: words(WAYS_OUT).collect(),
        borrowed: words(BORROWED).collect(),
    }
});

/// Most parts of a dotted name that are in the lists.
const PARTS_MAX: usize = 6;

/// What is known of `module.name`.
pub fn judge(module: &str, name: &str) -> Known {
    if LISTS.harmless.contains(&(module, name)) {
        return Known { grade: Grade::Safe, shape: shape(module, name), why: "" };
    }
    if (module, name) == ("joblib.numpy_pickle", "NumpyArrayWrapper") {
        let why = "an array stands amid the pickle behind it";
        return Known { grade: Grade::Unknown, shape: Shape::Wrapped, why };
    }
    let shape = match (module, name) {
        ("builtins" | "__builtin__", "getattr") => Shape::Attribute,
        _ => Shape::Other,
    };
    match danger(module, name) {
        Some(why) => Known { grade: Grade::Unsafe, shape, why },
        None => Known { grade: Grade::Unknown, shape: Shape::Other, why: UNKNOWN },
    }
}

fn shape(module: &str, name: &str) -> Shape {
    match (module, name) {
        ("collections", "deque") | (_, "list") => Shape::List,
        ("collections", _) | (_, "dict") => Shape::Map,
        (_, "scalar" | "_rebuild_from_type_v2") => Shape::Given,
        ("numpy", "dtype") => Shape::DtypeClass,
        (_, "ndarray" | "matrix" | "MaskedArray") => Shape::ArrayClass,
        (_, "_reconstruct" | "_mareconstruct") => Shape::Reconstruct,
        ("torch" | "torch.cuda" | "torch.storage", name) => match number_bytes(name) {
            Some(bytes) => Shape::Storage(bytes),
            None => Shape::Other,
        },
        _ => Shape::Other,
    }
}

/// How many bytes a number of such a storage has in a file.
fn number_bytes(storage: &str) -> Option<u8> {
    Some(match storage {
        "ComplexDoubleStorage" => 16,
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "FloatStorage" | "IntStorage" | "QInt32Storage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        "CharStorage" | "ByteStorage" | "BoolStorage" | "QUInt8Storage" | "QInt8Storage" | "QUInt4x2Storage"
        | "QUInt2x4Storage" | "UntypedStorage" | "_UntypedStorage" => 1,
        _ => return None,
    })
}

fn danger(module: &str, name: &str) -> Option<&'static str> {
    let lists = &*LISTS;
    // The name may be a module, too: `torch` and `hub.load`.
    let whole = format!("{module}.{name}");
    let ends = whole.match_indices('.').map(|(at, _)| at).chain([whole.len()]).take(PARTS_MAX);
    if let Some(why) = ends.filter_map(|end| whole.get(..end)).find_map(|top| lists.modules.get(top)) {
        return Some(why);
    }
    let first = name.split('.').next().unwrap_or(name);
    if let Some(why) = [name, first].into_iter().find_map(|name| lists.names.get(&(module, name))) {
        return Some(why);
    }
    if name.split('.').any(|part| lists.ways_out.contains(part)) {
        return Some("its dotted name leads out of the module");
    }
    // A module that another one imported: `pathlib` and `os.system`, `torch.storage` and `os`.
    let parts = || name.split('.').chain(module.split('.').skip(1));
    if name.contains('.') && parts().any(|part| lists.borrowed.contains(part)) {
        return Some("its dotted name leads through another module");
    }
    lists.borrowed.contains(name).then_some("it is a module that runs commands or code")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_do_not_contradict_each_other() {
        for (module, names) in HARMLESS {
            for name in names.split_ascii_whitespace() {
                assert!(!name.contains('.'), "{module}.{name}: an attribute of something is never harmless");
                let found = danger(module, name);
                let meant = *module == "torch.serialization";
                assert!(found.is_none() || meant, "{module}.{name} is harmless, and {found:?}");
                assert_eq!(judge(module, name).grade, Grade::Safe);
            }
        }
    }

    #[test]
    fn types_of_numbers_and_a_version_are_harmless_and_what_stands_beside_them_is_not() {
        for name in ["float4_e2m1fn_x2", "float8_e8m0fnu", "int1", "int7", "uint4", "bits1x8", "bits16"] {
            assert_eq!(judge("torch", name).grade, Grade::Safe, "torch.{name}");
        }
        assert_eq!(judge("torch.torch_version", "TorchVersion").grade, Grade::Safe);
        for (module, name) in [
            ("torch", "uint4.__class__"),
            ("torch.torch_version", "os"),
            ("torch.torch_version", "TorchVersion.__init__.__globals__"),
        ] {
            assert_eq!(judge(module, name).grade, Grade::Unsafe, "{module}.{name}");
        }
        for (module, name) in [
            ("torch", "int0"),
            ("torch", "uint4.to_complex"),
            ("torch", "torch_version.TorchVersion"),
            ("torch.torch_version", "Version"),
            ("torch.torch_version", "TorchVersion.format"),
        ] {
            assert_eq!(judge(module, name).grade, Grade::Unknown, "{module}.{name}");
        }
    }

    #[test]
    fn names_are_judged_by_all_of_their_parts() {
        let grade = |module, name| judge(module, name).grade;
        for (module, name) in [
            ("os", "system"),
            ("os.path", "join"),
            ("pathlib", "os.system"),
            ("torch", "hub.load"),
            ("torch.utils", "cpp_extension"),
            ("collections", "abc.sys.modules"),
            ("builtins", "dict.__class__"),
            ("builtins", "eval"),
            ("numpy", "f2py.crackfortran.getlincoef"),
            ("torch.serialization", "os"),
            ("numpy.testing._private.utils", "runstring"),
            ("torch.serialization", "load"),
        ] {
            assert_eq!(grade(module, name), Grade::Unsafe, "{module}.{name}");
        }
        for (module, name) in [
            ("osprey", "system"),
            ("my_model", "Net"),
            ("builtins", "print"),
            ("builtins", "set.union"),
            ("", ""),
            ("sklearn.svm._classes", "SVC"),
            ("functools", "partial"),
            ("logging", "getLogger"),
            ("_io", "BytesIO"),
            ("torch.distributed.checkpoint.metadata", "Metadata"),
            ("os\r", "system"),
            ("collections ", "deque"),
        ] {
            assert_eq!(grade(module, name), Grade::Unknown, "{module}.{name}");
        }
    }
}
