/* cgagent as one static program: CPython from libpython3.11.a, its modules frozen into it (freeze.h).
 *
 * It needs no libc, loader, shell or Python where it runs, and looks for no file of a Python installation:
 * a container `FROM scratch` will do. What it is to run is the frozen module __main__ (overlay/entry.py).
 */
#include <Python.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "inittab.h"
#include "modules.h" /* static const struct _frozen modules[] */

/* Where this file is: /proc says it best, and without /proc the kernel tells what execve(2) was given. */
static const char *own_path(void) {
    static char path[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length > 0) {
        path[length] = '\0';
        return path;
    }
    const char *given = (const char *)getauxval(AT_EXECFN);
    return given && realpath(given, path) ? path : "/cgagent";
}

static void check(PyStatus status) {
    if (PyStatus_Exception(status)) {
        Py_ExitStatusException(status);
    }
}

static void set(PyConfig *config, wchar_t **field, const char *text) {
    check(PyConfig_SetBytesString(config, field, text));
}

int main(int argc, char **argv) {
    PyPreConfig before;
    PyPreConfig_InitIsolatedConfig(&before);
    before.utf8_mode = 1; /* the image may have no locale, and LC_CTYPE is the command's, not ours to change */
    check(Py_PreInitialize(&before));
    PyImport_FrozenModules = modules;

    PyConfig config;
    PyConfig_InitIsolatedConfig(&config);
    config.site_import = 0;
    config.write_bytecode = 0;
    config.pathconfig_warnings = 0;
    config.install_signal_handlers = 1; /* SIGINT as KeyboardInterrupt, SIGPIPE as EPIPE, as python does */
    config.optimization_level = 2;
    check(PyConfig_SetBytesArgv(&config, argc, argv));
    const char *path = own_path();
    set(&config, &config.program_name, path);
    set(&config, &config.executable, path);
    set(&config, &config.base_executable, path);
    wchar_t **empty[] = {&config.prefix, &config.exec_prefix, &config.base_prefix, &config.base_exec_prefix,
                         &config.home, &config.stdlib_dir};
    for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
        set(&config, empty[i], "");
    }
    config.module_search_paths_set = 1; /* and empty: everything is frozen */
    check(Py_InitializeFromConfig(&config));
    PyConfig_Clear(&config);

    int imported = PyImport_ImportFrozenModule("__main__");
    if (imported < 0) {
        PyErr_Print(); /* ends the process where it is SystemExit */
    }
    int flushed = Py_FinalizeEx();
    return imported == 1 && flushed == 0 ? 0 : 1;
}
