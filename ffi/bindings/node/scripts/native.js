// Puts libkeystead into the package, with what its headers declare: native/libkeystead.so, native/interface.json.
//
// Both come from where pkg-config finds keystead. What JavaScript knows of the library is read from the headers here, so
// there is no second copy of a declaration that could drift.

import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

function pkgConfig(variable) {
  try {
    return execFileSync('pkg-config', [`--variable=${variable}`, 'keystead'], { encoding: 'utf8' }).trim();
  } catch {
    console.error('building keystead needs libkeystead, found by pkg-config: install it (docs/embedding.md), and set');
    console.error('PKG_CONFIG_PATH if it is not where the system looks');
    process.exit(1);
  }
}

/** The constants, structs and functions of a header. */
function declarations(header) {
  const text = header
    .replace(/\/\*[^]*?\*\//g, ' ')
    .replace(/\\\n/g, ' ')
    .replace(/#\s*ifdef __cplusplus[^]*?#\s*endif/g, '');
  const constants = {};
  for (const [, name, value] of text.matchAll(/^\s*#\s*define\s+(KEYSTEAD_\w+)[ \t]+(-?\d+)\s*$/gm)) {
    constants[name] = Number(value);
  }
  const code = text.replace(/^\s*#.*$/gm, '');
  const structs = {};
  for (const [, body, name] of code.matchAll(/typedef struct \w+\s*{([^}]*)}\s*(\w+);/g)) {
    const fields = body.split(';').map((field) => field.trim()).filter(Boolean);
    // A table of functions is not for JavaScript to read.
    if (!fields.some((field) => field.includes('('))) structs[name] = Object.fromEntries(fields.map(member));
  }
  const callbacks = [...code.matchAll(/typedef\s[^;{]*\(\*(\w+)\)/g)].map(([, name]) => name);
  const functions = {};
  for (const [, result, name, parameters] of code.matchAll(/^([\w ]+?[ *]+)(keystead_\w+)\(([^)]*)\);/gm)) {
    const types = parameters.trim() === 'void' ? [] : parameters.split(',').map((one) => member(one)[1]);
    functions[name] = { result: typeOf(result), parameters: types.map((type) => (callbacks.includes(type) ? 'void *' : type)) };
  }
  return { constants, structs, functions };
}

/** `const char *path` as name and type. */
function member(declaration) {
  const [, type, name, count] = /^\s*(.*?[\s*])(\w+)\s*(?:\[(\d+)\])?\s*$/s.exec(declaration);
  return [name, count ? { array: typeOf(type), count: Number(count) } : typeOf(type)];
}

/** Every pointer is a plain one: what it points to, the package knows. */
function typeOf(type) {
  const plain = type.replace(/\b(const|struct)\b/g, '').trim();
  return plain.includes('*') ? 'void *' : plain;
}

const native = fileURLToPath(new URL('../native/', import.meta.url));
const include = pkgConfig('includedir');
const found = ['keystead_backend.h', 'keystead.h'].map((name) => declarations(readFileSync(join(include, name), 'utf8')));
mkdirSync(native, { recursive: true });
writeFileSync(
  join(native, 'interface.json'),
  JSON.stringify({
    constants: Object.assign({}, ...found.map((one) => one.constants)),
    structs: found[1].structs,
    functions: found[1].functions,
  }, null, 1),
);
copyFileSync(realpathSync(join(pkgConfig('libdir'), 'libkeystead.so')), join(native, 'libkeystead.so'));
